"""Where a run goes on: never from a checkpoint that has changed, never with a gap in its rows."""

import random
import shutil
from types import SimpleNamespace

import pytest
import sweep_by_hand as by_hand

from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.journal import read_runs
from foretune.tuner.records.restart import restart_of
from foretune.tuner.sweeps.trainable import RunTrainable
from foretune.tuner.training.checkpoint import CHECKPOINT_FILE, PREVIOUS_FILE


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, text):
    """A sweep whose first run was killed at step 8, with checkpoints of 8 and 4; and its end."""
    out = tmp_path_factory.mktemp("interrupted")
    ended = out / "ended"
    by_hand.run_sweep(ended, text)
    begun = out / "begun"
    shutil.copytree(ended, begun)
    folder = sorted((begun / "runs").glob("*/"))[0]
    for name in ("outcome.json", "metrics.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoint")
    (waiting,), _ = read_runs(begun)
    trial = object.__new__(RunTrainable)
    trial.setup({"run_id": folder.name}, trials=by_hand.trial_files(begun, [waiting.run]))
    trial.step()
    trial.step()
    trial.cleanup()
    return SimpleNamespace(
        begun=begun, name=folder.name, run=waiting.run, numbers=by_hand.numbers(ended)
    )


@pytest.fixture
def sweep(interrupted, tmp_path):
    """A copy of the interrupted sweep, and the folder of its run."""
    shutil.copytree(interrupted.begun, tmp_path / "s")
    return SimpleNamespace(
        **{
            **vars(interrupted),
            "directory": tmp_path / "s",
            "folder": tmp_path / "s" / "runs" / interrupted.name,
        }
    )


def flip(path, position, bit):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_the_checkpoint_before_the_newest_is_kept(sweep):
    assert restart_of(sweep.folder, sweep.run).step == 8
    (sweep.folder / "checkpoint" / CHECKPOINT_FILE).unlink()
    before = restart_of(sweep.folder, sweep.run)
    assert (before.step, before.checkpoint.name, before.wrong) == (4, PREVIOUS_FILE, ())


@pytest.mark.parametrize("part", range(4))
def test_no_flipped_bit_of_a_checkpoint_reaches_a_run(sweep, text, part):
    """Forty of them: each is refused, or lies where nothing is read."""
    path = sweep.folder / "checkpoint" / CHECKPOINT_FILE
    rng, whole = random.Random(part), path.read_bytes()
    refused = 0
    for _ in range(10):
        path.write_bytes(whole)
        flip(path, rng.randrange(len(whole)), rng.randrange(8))
        found = restart_of(sweep.folder, sweep.run)
        refused += found.step == 4
        if found.step == 4:
            assert "got a damaged file" in found.wrong[0]
            assert "goes on from the checkpoint before, step 4" in found.note
    assert refused > 5  # The others are in the padding between its parts.
    said = by_hand.run_sweep(sweep.directory, text)
    assert len(said) == (found.step == 4)
    assert by_hand.numbers(sweep.directory) == sweep.numbers


@pytest.mark.parametrize("damaged", [(CHECKPOINT_FILE,), (CHECKPOINT_FILE, PREVIOUS_FILE)])
@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_truncated_checkpoint_costs_steps_and_no_number(sweep, text, damaged, length):
    for name in damaged:
        path = sweep.folder / "checkpoint" / name
        path.write_bytes(path.read_bytes()[:length])
    (said,) = by_hand.run_sweep(sweep.directory, text)
    cure = "trained from its start" if len(damaged) == 2 else "checkpoint before, step 4"
    assert said.startswith(f"Run {sweep.name}: ")
    assert cure in said
    assert by_hand.numbers(sweep.directory) == sweep.numbers


@pytest.mark.parametrize(
    ("rows", "cure"), [(6, "step 4"), (3, "from its start"), (0, "from its start")]
)
def test_a_checkpoint_whose_rows_are_lost_is_not_gone_on_from(sweep, text, rows, cure):
    path = sweep.folder / "metrics.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:rows]))
    (said,) = by_hand.run_sweep(sweep.directory, text)
    assert f"must have its 8 rows in metrics.jsonl, got {rows} whole ones" in said
    assert cure in said
    assert by_hand.numbers(sweep.directory) == sweep.numbers


@pytest.mark.parametrize(("row", "cure"), [(1, "from its start"), (6, "step 4")])
def test_a_checkpoint_whose_rows_have_changed_is_not_gone_on_from(sweep, text, row, cure):
    """A digit that is another digit leaves valid JSON: the checksum alone sees it."""
    path = sweep.folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    head, _, digits = lines[row].partition('"loss": ')
    lines[row] = f'{head}"loss": {(int(digits[0]) + 1) % 10}{digits[1:]}'
    path.write_text("\n".join(lines) + "\n")
    (said,) = by_hand.run_sweep(sweep.directory, text)
    assert "must have its own rows in metrics.jsonl, got others" in said
    assert cure in said
    assert by_hand.numbers(sweep.directory) == sweep.numbers


def test_a_checkpoint_of_another_run_is_not_gone_on_from(sweep, text):
    other = next(p for p in (sweep.directory / "runs").glob("*/") if p != sweep.folder)
    for path in sweep.folder.glob("checkpoint/*"):
        path.unlink()
    shutil.copyfile(
        other / "checkpoint" / CHECKPOINT_FILE, sweep.folder / "checkpoint" / CHECKPOINT_FILE
    )
    (said,) = by_hand.run_sweep(sweep.directory, text)
    assert "must be a checkpoint of this run, got one of another run" in said
    assert by_hand.numbers(sweep.directory) == sweep.numbers


def test_a_checkpoint_of_before_goes_on_by_its_rows_alone(sweep):
    """Those of older versions note no checksum."""
    import torch

    path = sweep.folder / "checkpoint" / CHECKPOINT_FILE
    state = torch.load(path, weights_only=True)
    del state["rows"]
    torch.save(state, path)
    assert restart_of(sweep.folder, sweep.run).step == 8


def test_rows_and_steps_are_one_for_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in range(3):
        metrics(step, {"loss": 1.0})
    noted = metrics.sync()
    metrics.close()
    assert noted["count"] == 3
    again = MetricsFile(path, keep_below=3)
    assert again.rows == noted
    again.close()
    with pytest.raises(ValueError, match="every row before step 5, got 3 whole ones"):
        MetricsFile(path, keep_below=5)
    assert len(path.read_bytes().splitlines()) == 3
