"""The journal: no folder without a sweep, and what a scheduler has heard of a run."""

import os

import pytest
import torch

from foretune.tuner.config.override import override
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.journal import check_new, new_folder, past_reports
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import run_id
from foretune.tuner.training.train import Training

RUN = override(
    lm_tiny(20),
    {"model.width": 16, "eval_every": 5, "data.name": "text", "data.path": os.__file__},
)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def killed(tmp_path):
    """A run killed after step 15 whose checkpoint is of step 10, and its validation losses."""
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    training = Training(RUN, metrics, device="cpu")
    losses = {}
    for step in (5, 10, 15):
        training.advance()
        losses[step] = training.val_loss
        metrics.flush()
        if step == 10:
            training.save(tmp_path / "checkpoint")
    yield tmp_path, training, losses
    metrics.close()


def test_a_run_without_an_outcome_has_reported_up_to_its_checkpoint(killed):
    run_dir, _, losses = killed
    reports, end = past_reports(run_dir)
    assert reports == [{"step": step, "objective": losses[step]} for step in (5, 10)]
    assert end is None


def test_the_checkpoint_holds_the_loss_whose_row_a_kill_has_prevented(killed):
    run_dir, _, losses = killed
    MetricsFile(run_dir / "metrics.jsonl", keep_below=10).close()
    reports, _ = past_reports(run_dir)
    assert reports == [{"step": step, "objective": losses[step]} for step in (5, 10)]


def test_a_run_without_a_checkpoint_starts_again_and_has_reported_nothing(killed):
    run_dir, _, _ = killed
    (run_dir / "checkpoint" / "state.pt").unlink()
    assert past_reports(run_dir) == ([], None)
    assert past_reports(run_dir / "absent") == ([], None)


@pytest.mark.parametrize("outcome", ["stopped", "diverged"])
def test_a_run_that_was_ended_has_reported_its_validations_and_its_end(killed, outcome):
    run_dir, training, losses = killed
    training.end(outcome, "for the test")
    training.sink.close()
    ended = RunEnd.of(run_id(RUN), training.outcome)
    ended.write(run_dir)
    reports, end = past_reports(run_dir)
    assert reports == [{"step": step, "objective": loss} for step, loss in losses.items()]
    assert end == {"step": 15, "objective": ended.objective}


def test_a_run_that_finished_reported_its_last_validation_as_its_end(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    training = Training(RUN, metrics, device="cpu")
    while training.outcome is None:
        training.advance()
    metrics.close()
    RunEnd.of(run_id(RUN), training.outcome).write(tmp_path)
    reports, end = past_reports(tmp_path)
    assert [report["step"] for report in reports] == [5, 10, 15]
    assert end == {"step": 20, "objective": training.val_loss}


def test_a_run_whose_checkpoint_is_damaged_starts_again_and_has_reported_nothing(killed):
    run_dir, _, _ = killed
    (run_dir / "checkpoint" / "state.pt").write_bytes(b"PK torn")
    assert past_reports(run_dir) == ([], None)


def test_a_new_folder_goes_with_the_error_that_comes_before_its_first_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "b"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_or_holds_a_file_stays(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    with pytest.raises(KeyError), new_folder(mine):
        raise KeyError
    assert mine.is_dir()
    file = mine / "a" / "b" / "sweep.json"
    with pytest.raises(KeyError), new_folder(file.parent):
        write_and_fail(file)
    assert file.is_file()


def test_a_folder_that_holds_something_says_what_and_the_cure_that_works(tmp_path):
    run = tmp_path / "runs" / "a1b2c3d4e5f6"
    run.mkdir(parents=True)
    check_new(tmp_path)  # A sweep that was killed while it was written down: it begins anew.
    (tmp_path / "runs" / "notes.txt").touch()
    (run / "metrics.jsonl").touch()
    with pytest.raises(
        ValueError, match="which holds runs of foretune train; name another"
    ) as refused:
        check_new(tmp_path)
    assert "resume" not in str(refused.value)
    (tmp_path / "sweep.json").touch()
    with pytest.raises(
        ValueError, match=f"holds a sweep; continue it with 'foretune resume {tmp_path}"
    ):
        check_new(tmp_path)


def write_and_fail(file):
    file.touch()
    raise KeyError(file)
