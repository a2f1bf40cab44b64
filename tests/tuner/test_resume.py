"""A command run again, or killed and resumed, gives the bits of the same command never killed."""

import signal
import time

import pytest
from processes import (
    checkpointed,
    finish,
    interrupt,
    kill,
    metrics,
    outcomes,
    short,
    start,
    unfinished_with_checkpoint,
    wait_for,
)

from tuner.sweep import sweep

SWEEP = (
    "sweep", "lr", "--out", "sweep", "--sizes", "16", "--grid", "optimizer.lr=1e-2,3e-2",
    "--checkpoint-seconds", "0",
)  # fmt: skip
TRAIN = ("train", "lm-tiny", "--size", "16", "--out", "sweep", "--device", "cpu")
"""One of the sweep's runs: the preset has LR 1e-2 and no qk-layernorm."""
STEPS = 400


@pytest.fixture(scope="module")
def settings(text):
    return short(text, STEPS)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, settings):
    """The folder of a sweep by a command that nothing interrupted, in an empty one."""
    cwd = tmp_path_factory.mktemp("baseline")
    told = finish(start(*SWEEP, *settings, cwd=cwd))
    for words in ("[4/4]", "4 trials: 4 finished", "LR sensitivity"):
        assert words in told
    assert len(metrics(cwd / "sweep")) == 4
    return cwd / "sweep"


def test_the_same_command_in_another_process_gives_the_same_bits(baseline, settings, tmp_path):
    finish(start(*SWEEP, *settings, cwd=tmp_path))
    assert metrics(tmp_path / "sweep") == metrics(baseline)


def test_a_killed_sweep_goes_on_to_the_same_bits(baseline, settings, tmp_path):
    out = tmp_path / "sweep"
    process = start(*SWEEP, *settings, cwd=tmp_path)
    wait_for(lambda: outcomes(out) and unfinished_with_checkpoint(out), process)
    kill(process)
    ended = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("outcome.json")}
    assert 1 <= len(ended) < 4
    assert any(checkpointed(run_dir) > 0 for run_dir in unfinished_with_checkpoint(out))
    assert "4 trials: 4 finished" in finish(start("resume", "sweep", cwd=tmp_path))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in ended} == ended
    assert metrics(out) == metrics(baseline)
    assert not (out / ".ray").exists()
    assert (out / "trials.parquet").exists()


def test_sigterm_and_ctrl_c_end_with_130_and_resume_finishes_to_the_same_bits(
    baseline, settings, tmp_path
):
    out = tmp_path / "sweep"
    process = start(*SWEEP, *settings, cwd=tmp_path)
    wait_for(lambda: unfinished_with_checkpoint(out), process)
    told = interrupt(process, signal.SIGTERM)
    assert f"continue with: foretune resume {out}" in told
    assert "unfinished" in told
    left = sum(checkpointed(run_dir) for run_dir in unfinished_with_checkpoint(out))
    process = start("resume", "sweep", cwd=tmp_path)
    wait_for(
        lambda: outcomes(out) or sum(map(checkpointed, unfinished_with_checkpoint(out))) > left,
        process,
    )
    assert f"continue with: foretune resume {out}" in interrupt(process, signal.SIGINT)
    assert "4 trials: 4 finished" in finish(start("resume", "sweep", cwd=tmp_path))
    assert metrics(out) == metrics(baseline)
    assert [o["step"] for o in outcomes(out).values()] == [STEPS] * 4
    with pytest.raises(ValueError, match="--out must be a new directory"):
        sweep({"optimizer.lr": 0.1}, out=out)


def test_a_sigterm_that_ends_ray_as_well_says_how_to_go_on(baseline, settings, tmp_path):
    """As timeout and slurm send it: to the group, in which Ray's own processes are."""
    out = tmp_path / "sweep"
    process = start(*SWEEP, *settings, cwd=tmp_path)
    wait_for(lambda: unfinished_with_checkpoint(out), process)
    began = time.monotonic()
    told = interrupt(process, signal.SIGTERM, group=True)
    assert time.monotonic() - began < 45  # Ray alone took 60 s, to exit code 1.
    assert told.endswith(f"Interrupted; continue with: foretune resume {out}\n")
    assert "4 trials: 4 finished" in finish(start("resume", "sweep", cwd=tmp_path))
    assert metrics(out) == metrics(baseline)


@pytest.mark.parametrize("end", ["kill", "ctrl-c"])
def test_a_killed_train_goes_on_to_the_bits_of_the_sweep(baseline, settings, tmp_path, end):
    out = tmp_path / "sweep"
    process = start(*TRAIN, *settings, cwd=tmp_path)
    wait_for(lambda: any(checkpointed(p) >= 20 for p in unfinished_with_checkpoint(out)), process)
    if end == "kill":
        kill(process)
    else:
        interrupt(process, signal.SIGINT)
    finish(start(*TRAIN, *settings, cwd=tmp_path))
    (run_id,) = metrics(out)
    assert metrics(out)[run_id] == metrics(baseline)[run_id]
