"""foretune commands as processes of their own: started, signalled in the middle, compared."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
WAIT_S = 90.0


def start(*words, cwd):
    """Starts a foretune command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=cwd,
    )  # fmt: skip


def finish(process):
    """Waits for a command that must end well; returns what it told."""
    told, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    return told


def wait_for(condition, process):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def interrupt(process, signal_number, *, group=False):
    """Signals the driver alone, or with what is in its process group; returns what it told.

    It must end as interrupted.
    """
    (os.killpg if group else os.kill)(process.pid, signal_number)
    told, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    return told


def kill(process):
    """Kills the process group and all that the command had started besides it, Ray's included."""
    below = _descendants(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGKILL


def _descendants(pid):
    """Every process below one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


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
