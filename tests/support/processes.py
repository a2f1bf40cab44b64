"""foretune commands: as processes of their own, signalled in the middle; or in this process.

Nothing here waits for seconds: a command that hangs is ended by the limit of its test
(pyproject.toml), and `_nothing_is_left` in conftest.py then ends what it had started.
"""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from process_tree import below

from foretune.tuner.cli.main import main

ROOT = Path(__file__).parents[2]
_started: list[subprocess.Popen] = []


def start(*words, cwd):
    """Starts a foretune command in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "foretune", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cwd,
    )  # fmt: skip
    _started.append(process)
    return process


def end_started():
    """Kills the commands that still run, with all that they started."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            _kill(process)
        process.wait()
        process.stdout.close()


def finish(process):
    """Waits for a command that must end well; returns what it printed."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    return output


def here(*words, cwd):
    """Runs a command that must end well in this process, which has loaded torch and Ray already.

    Returns what it printed.
    """
    output, threads = io.StringIO(), torch.get_num_threads()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        without("RAY_ADDRESS"),
    ):
        torch.set_num_threads(1)  # As in a worker of Ray's, to the bit.
        try:
            with pytest.raises(SystemExit) as end:
                main([str(word) for word in words])
        finally:
            torch.set_num_threads(threads)
    assert end.value.code == 0, output.getvalue()
    assert "Traceback" not in output.getvalue()
    return output.getvalue()


@contextlib.contextmanager
def without(name):
    """Takes a variable out of the environment for a while."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def wait_for(condition, process):
    """Waits for what a command does, as long as the command goes on."""
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def interrupt(process, signal_number, *, group=False):
    """Signals the driver alone, or with what is in its process group; returns what it printed.

    It must end as interrupted.
    """
    (os.killpg if group else os.kill)(process.pid, signal_number)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    return output


def kill(process):
    """Kills the process group and all that the command had started besides it, Ray's included."""
    _kill(process)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _kill(process):
    started = below(process.pid)  # Before its end makes orphans of them.
    os.killpg(process.pid, signal.SIGKILL)
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def checkpointed(run_dir):
    """Step of a run's checkpoint."""
    return torch.load(run_dir / "checkpoint" / "state.pt", weights_only=True)["step"]


def unfinished_with_checkpoint(out):
    """Folders of the runs that have a checkpoint and no outcome."""
    runs = out.glob("runs/*/checkpoint/state.pt")
    return [p.parents[1] for p in runs if not (p.parents[1] / "outcome.json").exists()]


def outcomes(out):
    """{run id: outcome.json} of the runs that have ended."""
    paths = sorted(out.glob("runs/*/outcome.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def endings(out):
    """{outcome.json: when it was written, and its bytes} of the runs that have ended."""
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.glob("runs/*/outcome.json")}


def metrics(out):
    """{run id: text of metrics.jsonl} to the letter, but for the seconds, which are the clock's."""
    return {
        path.parent.name: re.sub(r'"seconds": [\d.e-]+', '"seconds": 0', path.read_text())
        for path in sorted(out.glob("runs/*/metrics.jsonl"))
    }


def short(text: Path, steps: int, *, eval_every: int = 10, sequences: int = 16) -> tuple[str, ...]:
    """Options of a sweep on a small text, validated often and cheaply."""
    return (
        "--set", f"steps={steps}", f"eval_every={eval_every}", "data.name=text",
        f"data.path={text}", f"data.validation_sequences={sequences}",
    )  # fmt: skip
