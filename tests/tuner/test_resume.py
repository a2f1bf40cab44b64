"""A sweep that was killed or interrupted goes on to the bits of one that never was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tuner.rundir import from_config
from tuner.sweep import resume, sweep
from tuner.train import train

ROOT = Path(__file__).parents[2]
WAIT_S = 90.0


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads, address = torch.get_num_threads(), os.environ.pop("RAY_ADDRESS", None)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "os.txt"
    path.write_bytes(Path(os.__file__).read_bytes()[:40_000])
    return path


def start(*words, text, size=16, steps=400):
    """Starts a foretune command in a process group of its own."""
    command = [
        sys.executable, "-m", "tuner", *words, "--set", f"steps={steps}", "eval_every=10",
        "data.name=text", f"data.path={text}", "data.validation_sequences=16",
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=text.parent,
    )  # fmt: skip


def sweep_words(out):
    return (
        "sweep", "lr", "--out", str(out), "--sizes", "16", "--grid", "optimizer.lr=1e-2,3e-2",
        "--checkpoint-seconds", "0",
    )  # fmt: skip


def descendants(pid):
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


def wait_for(condition, process):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def kill(process, signal_number):
    """Signals the process group; returns what came out and who was below it."""
    below = descendants(process.pid)
    os.killpg(process.pid, signal_number)
    out, _ = process.communicate(timeout=WAIT_S)
    return out, below


def end(pids):
    """Ends what a killed driver of ours has left running."""
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"ray" in command or b"tuner" in command:
            os.kill(pid, signal.SIGKILL)


def unfinished_with_checkpoint(out):
    runs = out.glob("runs/*/checkpoint/state.pt")
    return [p.parents[1] for p in runs if not (p.parents[1] / "outcome.json").exists()]


def rows(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for row in found:
        del row["seconds"]
    return found


def alone(run_dir):
    """The rows of a run that nothing interrupted; test_sweep shows that Ray adds nothing."""
    run = from_config(json.loads((run_dir / "run.json").read_text())["config"])
    found = []
    train(run, lambda step, row: found.append({"step": step, **row}), device="cpu")
    for row in found:
        del row["seconds"]
    return found


def check_complete(out, count=4):
    run_dirs = sorted((out / "runs").iterdir())
    assert len(run_dirs) == count
    for run_dir in run_dirs:
        outcome = json.loads((run_dir / "outcome.json").read_text())
        assert (outcome["outcome"], outcome["step"]) == ("finished", 400)
        assert rows(run_dir / "metrics.jsonl") == alone(run_dir)


def test_a_killed_sweep_goes_on_to_the_same_bits(tmp_path, text):
    out = tmp_path / "sweep"
    process = start(*sweep_words(out), text=text)
    wait_for(
        lambda: list(out.glob("runs/*/outcome.json")) and unfinished_with_checkpoint(out), process
    )
    _, below = kill(process, signal.SIGKILL)
    try:
        assert process.returncode == -signal.SIGKILL
        ended = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("outcome.json")}
        assert 1 <= len(ended) < 4
        started = {p: checkpointed(p) for p in unfinished_with_checkpoint(out)}
        result = resume(out)
    finally:
        end(below)
    assert result.exit_code == 0
    assert dict(result.outcomes) == {"finished": 4}
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in ended} == ended
    assert any(step > 0 for step in started.values())
    check_complete(out)
    assert not (out / ".ray").exists()
    assert (out / "trials.parquet").exists()


def checkpointed(run_dir):
    return torch.load(run_dir / "checkpoint" / "state.pt", weights_only=True)["step"]


def test_an_interrupted_sweep_ends_with_130_and_goes_on_to_the_same_bits(tmp_path, text):
    out = tmp_path / "sweep"
    process = start(*sweep_words(out), text=text)
    wait_for(lambda: unfinished_with_checkpoint(out), process)
    told, below = kill(process, signal.SIGINT)
    try:
        assert process.returncode == 130, told
        assert f"continue with: foretune resume {out}" in told
        assert "Traceback" not in told
        assert "unfinished" in told
        again = subprocess.run(
            [sys.executable, "-m", "tuner", "resume", str(out)],
            capture_output=True, text=True, timeout=WAIT_S, cwd=text.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    finally:
        end(below)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 trials: 4 finished" in again.stdout
    check_complete(out)
    with pytest.raises(ValueError, match="--out must be a new directory"):
        sweep({"optimizer.lr": 0.1}, out=out)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_train_goes_on_to_the_same_bits(tmp_path, text, signal_number):
    words = ("train", "lm-tiny", "--size", "16", "--out", str(tmp_path), "--device", "cpu")
    process = start(*words, text=text)
    wait_for(lambda: any(checkpointed(p) >= 20 for p in unfinished_with_checkpoint(tmp_path)),
             process)  # fmt: skip
    kill(process, signal_number)
    assert process.returncode == (-9 if signal_number == signal.SIGKILL else 130)
    again = start(*words, text=text)
    told, _ = again.communicate(timeout=WAIT_S)
    assert again.returncode == 0, told
    check_complete(tmp_path, 1)
