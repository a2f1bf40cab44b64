"""A trial in this process: an error ends it with a reason, memory and storage are tried again."""

import errno
import os
import re
import sys

import pytest
from failing_models import line_of, write_failing

from foretune.tuner.config.override import override
from foretune.tuner.config.resolve import resolve
from foretune.tuner.records import storage
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.sweeps import micro_batch
from foretune.tuner.sweeps.last_words import FAULT_FILE
from foretune.tuner.sweeps.trainable import RunTrainable, Trial
from foretune.tuner.training.train import Training


@pytest.fixture
def failing(tmp_path, text, monkeypatch):
    """Makes the run of the failing model that fails in some way."""
    monkeypatch.chdir(tmp_path)
    run = resolve(f"{write_failing(tmp_path)}:RUN")
    yield lambda how: override(
        run,
        {
            "model.how": how,
            "data.name": "text",
            "data.path": str(text),
            "data.validation_sequences": 8,
        },
    )
    sys.modules.pop("failing", None)


def trial_of(run, folder, **how):
    """A trainable as Tune makes it, of a run in a folder."""
    trainable = RunTrainable.__new__(RunTrainable)  # Its __init__ wants a Ray.
    directory = folder / "sweep" / "runs" / "one"
    trial = Trial(run_id="one", run=run, size=8, directory=str(directory), **how)
    trainable.setup({"run_id": "one"}, trials={"one": trial})
    return trainable, directory


def to_the_end(trainable):
    """The last report."""
    while not (report := trainable.step())["done"]:
        pass
    trainable.cleanup()
    return report


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("forward", "RuntimeError: out of order in failing.py, line {}"),
        ("sys.exit", "SystemExit: 3 in failing.py, line {}"),
        ("interrupt", "KeyboardInterrupt in failing.py, line {}"),
        ("save", "RuntimeError: not for keeping in failing.py, line {}"),
    ],
)
def test_an_error_in_a_user_s_code_is_a_short_reason_with_its_place(failing, tmp_path, how, reason):
    trainable, directory = trial_of(failing(how), tmp_path, checkpoint_seconds=0.0)
    outcome = to_the_end(trainable)["outcome"]
    places = {"forward": "out of order", "sys.exit": "sys.exit(3)", "save": "not for keeping"}
    line = line_of(places.get(how, "raise KeyboardInterrupt"))
    assert (outcome.outcome, outcome.reason) == ("failed", reason.format(line))
    assert outcome.step >= 4
    assert "failing.py" in (directory / "error.txt").read_text()
    assert not (directory / FAULT_FILE).exists()


def test_a_sigterm_of_ray_s_is_no_error_of_the_run(failing, tmp_path):
    def end(*_):
        ending = SystemExit(1)
        ending.is_ray_terminate = True
        raise ending

    trainable, _ = trial_of(failing("none"), tmp_path)
    trainable.step()
    trainable._training.advance = end
    with pytest.raises(SystemExit):
        trainable.step()
    trainable.cleanup()


def test_without_memory_a_run_goes_on_at_half_its_micro_batch_and_says_so(failing, tmp_path):
    run = failing("leak")
    trainable, directory = trial_of(run, tmp_path, checkpoint_seconds=0.0)
    outcome = to_the_end(trainable)["outcome"]
    assert outcome.outcome == "finished"
    assert outcome.reason.startswith(
        "all 40 steps done; at a micro-batch of 2 instead of 4, since memory ran out at step"
    )
    assert micro_batch.micro_batch_of(directory, run) == 2
    # Another process that goes on with it knows.
    assert Training(run, print, device="cpu").micro_batch_size == 4


def test_without_memory_at_half_the_micro_batch_too_it_fails_with_the_reason(failing, tmp_path):
    trainable, _ = trial_of(failing("leak always"), tmp_path, checkpoint_seconds=0.0)
    outcome = to_the_end(trainable)["outcome"]
    assert outcome.outcome == "failed"
    assert outcome.reason.startswith("out of memory: RuntimeError: ")
    assert "at a micro-batch of 2 instead of 4, since memory ran out" in outcome.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (errno.EIO, errno.EROFS, errno.ESTALE)),
    ],
)
def test_storage_that_is_back_in_time_costs_a_run_nothing(failing, tmp_path, monkeypatch, number):
    whole, directory = trial_of(failing("none"), tmp_path / "whole", checkpoint_seconds=0.0)
    to_the_end(whole)
    expected = without_seconds(directory)
    left = [number, number]
    flush = MetricsFile.flush

    def fails(file):
        if left and file._file.tell() > 2000:
            raise OSError(left.pop(), os.strerror(number))
        flush(file)

    monkeypatch.setattr(MetricsFile, "flush", fails)
    cut, directory = trial_of(failing("none"), tmp_path / "cut", checkpoint_seconds=0.0)
    assert to_the_end(cut)["outcome"].outcome == "finished"
    assert not left
    assert without_seconds(directory) == expected


def test_storage_that_stays_away_leaves_a_run_unfinished(failing, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE_S", 0.1)

    def fails(file):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(MetricsFile, "flush", fails)
    trainable, directory = trial_of(failing("none"), tmp_path)
    report = to_the_end(trainable)
    assert report["outcome"] is None
    assert report["storage"].startswith(
        f"The storage of {directory.parents[1]} must take what a sweep writes, got No space left"
    )
    assert report["storage"].endswith(f"foretune resume {directory.parents[1]}")


def without_seconds(directory):
    text = (directory / "metrics.jsonl").read_text()
    return re.sub(r'"seconds": [\d.e-]+', "", text)
