"""Bits: the same seed gives the same run, in any process and from any checkpoint."""

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import Bigram, Rows, digest, finish, follow, small, without_time

from foretune.tuner.config.optimizer import Optimizer
from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run
from foretune.tuner.data.tokens import load_corpus
from foretune.tuner.training.checkpoint import CHECKPOINT_FILE, checkpoint_step
from foretune.tuner.training.train import Training, train

ROOT = Path(__file__).parents[3]

CHILD = """
import hashlib, json, resource, signal, sys
from dataclasses import asdict
from pathlib import Path
import torch
torch.set_num_threads(1)
from foretune.models import TransformerConfig
from foretune.models.nets.parametrize import Parametrization
from foretune.models.quantization.config import Quantization
from foretune.tuner.config.run import Loss, Optimizer, Run, Schedule
from foretune.tuner.data.tokens import Data
from foretune.tuner.training.train import Training

def go(run, restore):
    rows = []
    sink = lambda step, row: rows.append([step, dict(row)])
    training = Training(run, sink, device="cpu", restore=restore)
    while training.outcome is None:
        training.advance()
    weights = training.flat.values.detach().numpy().tobytes()
    return [rows, hashlib.sha256(weights).hexdigest(), asdict(training.outcome)]

run, folder = eval(sys.argv[1]), Path(sys.argv[2])
"""


def child(script: str, run: Run, folder: Path) -> subprocess.CompletedProcess[str]:
    """A new process; the repr of a Run is the Run."""
    command = [sys.executable, "-c", CHILD + textwrap.dedent(script), repr(run), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_same_seed_same_bits_and_another_seed_others(text):
    (_, rows, one), (_, again, two), (_, others, three) = (
        follow(small(text, {"seed": seed})) for seed in (3, 3, 4)
    )
    assert without_time(rows) == without_time(again)
    assert digest(one) == digest(two)
    assert digest(three) != digest(one)
    # Other weights (the validation windows are fixed) and other batches.
    assert others[0][1]["val_loss"] != rows[0][1]["val_loss"]
    assert not torch.equal(one.stream.batch(3, 0)[0], three.stream.batch(4, 0)[0])


def test_what_ran_before_in_the_process_changes_nothing(text):
    _, _, first = follow(small(text))
    torch.rand(17)
    follow(small(text, {"seed": 9, "model.width": 32}))
    _, _, second = follow(small(text))
    assert digest(first) == digest(second)


@pytest.mark.slow
def test_another_process_gives_the_same_bits_from_the_start_and_from_a_checkpoint(text, tmp_path):
    run = small(text, {"seed": 5})
    outcome, rows, uninterrupted = follow(run)
    before: Rows = []
    interrupted = Training(run, lambda step, row: before.append((step, dict(row))), device="cpu")
    interrupted.advance()
    interrupted.advance()
    interrupted.save(tmp_path)
    assert checkpoint_step(tmp_path) == 8
    done = child("print(json.dumps([go(run, folder), go(run, None)]))", run, tmp_path)
    assert done.returncode == 0, done.stderr
    (after, resumed_hash, record), (again, again_hash, again_record) = json.loads(done.stdout)

    assert [step for step, _ in before] == list(range(8))
    assert [step for step, _ in after] == list(range(8, 13))
    assert without_time(before) + without_time(after) == without_time(rows)
    assert without_time(again) == without_time(rows)
    assert resumed_hash == again_hash == digest(uninterrupted)
    mine = asdict(outcome)
    for other in (record, again_record):
        assert {**other, "seconds": 0} == {**mine, "seconds": 0}
    seconds = [row["seconds"] for _, row in [*before, *after]]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, {"model": Bigram(dropout=0.5)}, {"precision": "bfloat16", "micro_batch_size": 2}],
    ids=["transformer", "dropout", "bfloat16"],
)
def test_interrupted_and_restored_is_bit_for_bit_never_interrupted(text, tmp_path, changes, slices):
    run = small(text, changes)
    outcome, rows, whole = follow(run)
    resumed_rows: Rows = []
    sink = lambda step, row: resumed_rows.append((step, dict(row)))  # noqa: E731
    first = Training(run, sink, device="cpu")
    for _ in range(slices):
        first.advance()
    first.save(tmp_path)
    torch.manual_seed(99)  # Some other trial used this process between.
    second = Training(run, sink, device="cpu", restore=tmp_path)
    assert second.step == 4 * slices
    assert second.loss_at_init == outcome.loss_at_init
    assert second.objective == first.objective
    finish(second)
    assert without_time(resumed_rows) == without_time(rows)
    assert digest(second) == digest(whole)
    assert second.outcome.final_val_loss == outcome.final_val_loss


def test_train_writes_its_checkpoint_and_goes_on_from_it(text, tmp_path):
    run, rows = small(text), []
    finished = train(run, lambda s, m: rows.append(s), device="cpu", checkpoint=tmp_path)
    assert rows == list(range(13))
    assert checkpoint_step(tmp_path) == 8
    rows.clear()
    again = train(run, lambda s, m: rows.append(s), restore=tmp_path, device="cpu")
    assert rows == list(range(8, 13))
    assert again.final_val_loss == finished.final_val_loss
    assert again.objective == finished.objective


def test_a_run_with_numpy_numbers_resumes(text, tmp_path):
    run = override(small(text), {"optimizer.lr": np.float64(0.01)})
    training = Training(run, lambda s, m: None, device="cpu")
    training.advance()
    training.save(tmp_path)
    assert Training(small(text), lambda s, m: None, device="cpu", restore=tmp_path).step == 4
    with pytest.raises(ValueError, match=r"^optimizer.lr must be a finite number, got np.float64"):
        Optimizer(lr=np.float64(0.01))


def test_a_finished_run_is_not_saved(text, tmp_path):
    training = Training(small(text), lambda s, m: None, device="cpu")
    while training.outcome is None:
        training.advance()
    with pytest.raises(AssertionError, match="finished"):
        training.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_or_text_is_refused_in_one_sentence(text, tmp_path):
    training = Training(small(text), lambda s, m: None, device="cpu")
    training.advance()
    training.save(tmp_path)
    with pytest.raises(ValueError, match=r"^restore must be a checkpoint of this run .* another "
                       r"run in .*; remove the checkpoint to start again.$"):  # fmt: skip
        train(small(text, {"seed": 1}), lambda s, m: None, restore=tmp_path, device="cpu")
    path = tmp_path / "same-name" / text.name
    path.parent.mkdir()
    path.write_bytes(text.read_bytes())
    run = small(path)
    Training(run, lambda s, m: None, device="cpu").save(tmp_path / "other")
    path.write_bytes(text.read_bytes()[::-1])
    load_corpus.cache_clear()  # As in a new process, where the changed file is read.
    with pytest.raises(ValueError, match="another data_sha256 in"):
        train(run, lambda s, m: None, restore=tmp_path / "other", device="cpu")


def test_a_directory_without_a_checkpoint_is_refused_in_one_sentence(text, tmp_path):
    assert checkpoint_step(tmp_path) is None
    with pytest.raises(ValueError, match=r"^restore must hold a checkpoint, got .* without state"):
        train(small(text), lambda s, m: None, restore=tmp_path, device="cpu")


def test_a_kill_in_the_middle_of_writing_leaves_the_old_checkpoint(text, tmp_path):
    """The kernel ends the process inside write(): its files may grow to 20 KB and no further."""
    run = small(text)
    done = child(
        """
        training = Training(run, lambda step, row: None, device="cpu")
        training.advance()
        training.save(folder)
        training.advance()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        training.save(folder)
        """,
        run,
        tmp_path,
    )
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    partial = tmp_path / f"{CHECKPOINT_FILE}.partial"
    assert partial.stat().st_size == 20_000
    assert checkpoint_step(tmp_path) == 4
    resumed = Training(run, lambda s, m: None, device="cpu", restore=tmp_path)
    resumed.advance()
    resumed.save(tmp_path)  # The left-over is no hindrance.
    assert checkpoint_step(tmp_path) == 8
    assert not partial.exists()
    finish(resumed)
    assert digest(resumed) == digest(follow(run)[2])
