"""A command run again, or killed and resumed, gives the bits of the same command never killed."""

import signal

import pytest
from processes import (
    checkpointed,
    endings,
    finish,
    here,
    interrupt,
    kill,
    metrics,
    outcomes,
    short,
    start,
    unfinished_with_checkpoint,
    wait_for,
)

from foretune.tuner.sweeps.sweep import sweep

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
    output = here(*SWEEP, *settings, cwd=cwd)
    for words in ("[4/4]", "4 trials: 4 finished", "LR sensitivity"):
        assert words in output
    assert len(metrics(cwd / "sweep")) == 4
    return cwd / "sweep"


def steps_done(out):
    """Steps of all checkpoints, and of all runs that have ended."""
    ended = sum(o["step"] for o in outcomes(out).values())
    return ended + sum(checkpointed(run_dir) for run_dir in unfinished_with_checkpoint(out))


def cut_off(words, out, cwd, end):
    """Starts a command, waits for its next checkpoint, ends it; returns what `end` returns."""
    before = steps_done(out)
    process = start(*words, cwd=cwd)
    wait_for(lambda: steps_done(out) > before and unfinished_with_checkpoint(out), process)
    return end(process)


def check_whole(out, baseline):
    """Resumes a sweep, which must end as the one that nothing interrupted."""
    ended = endings(out)
    assert len(ended) < 4
    assert "4 trials: 4 finished" in here("resume", "sweep", cwd=out.parent)
    assert ended.items() <= endings(out).items()
    assert metrics(out) == metrics(baseline)
    assert [o["step"] for o in outcomes(out).values()] == [STEPS] * 4
    assert not (out / ".ray").exists()
    assert (out / "trials.parquet").exists()


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_then_ends_by_sigterm_goes_on_to_the_same_bits(
    baseline, settings, tmp_path
):
    out = tmp_path / "sweep"
    cut_off((*SWEEP, *settings), out, tmp_path, kill)
    assert any(checkpointed(run_dir) > 0 for run_dir in unfinished_with_checkpoint(out))
    output = cut_off(
        ("resume", "sweep"), out, tmp_path, lambda process: interrupt(process, signal.SIGTERM)
    )
    assert f"continue with: foretune resume {out}" in output
    assert "unfinished" in output
    check_whole(out, baseline)
    with pytest.raises(ValueError, match=r"^out must be a new directory"):
        sweep({"optimizer.lr": 0.1}, out=out)


@pytest.mark.slow
def test_a_signal_to_the_group_which_ends_ray_as_well_and_ctrl_c_say_how_to_go_on(
    baseline, settings, tmp_path
):
    """To the group, in which Ray's own processes are, as timeout and slurm send it. Ray alone would
    end with exit code 1, after a minute."""
    out = tmp_path / "sweep"
    output = cut_off(
        (*SWEEP, *settings),
        out,
        tmp_path,
        lambda process: interrupt(process, signal.SIGTERM, group=True),
    )
    assert output.endswith(f"Interrupted; continue with: foretune resume {out}\n")
    output = cut_off(
        ("resume", "sweep"), out, tmp_path, lambda process: interrupt(process, signal.SIGINT)
    )
    assert f"continue with: foretune resume {out}" in output
    check_whole(out, baseline)


@pytest.mark.slow
def test_the_same_command_in_another_process_gives_the_same_bits(baseline, settings, tmp_path):
    finish(start(*SWEEP, *settings, cwd=tmp_path))
    assert metrics(tmp_path / "sweep") == metrics(baseline)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "ctrl-c"])
def test_a_killed_train_goes_on_to_the_bits_of_the_sweep(baseline, settings, tmp_path, end):
    out = tmp_path / "sweep"
    process = start(*TRAIN, *settings, cwd=tmp_path)
    wait_for(lambda: any(checkpointed(p) >= 20 for p in unfinished_with_checkpoint(out)), process)
    if end == "kill":
        kill(process)
    else:
        interrupt(process, signal.SIGINT)
    here(*TRAIN, *settings, cwd=tmp_path)
    (run_id,) = metrics(out)
    assert metrics(out)[run_id] == metrics(baseline)[run_id]
