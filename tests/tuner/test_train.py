"""train(): bits, resume, typed divergence, and what the sink is told."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import Tap, TransformerConfig
from tuner.config import PROBES, Run, Schedule, override
from tuner.data import Data, load_corpus
from tuner.losses import cross_entropy, z_loss
from tuner.outcome import NO_LOSS, Outcome
from tuner.train import CHECKPOINT_FILE, Training, checkpoint_step, pick_device, train

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
Rows = list[tuple[int, dict[str, float]]]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Real text of 40 KB: the source of Python's `os` module."""
    path = tmp_path_factory.mktemp("text") / "os.txt"
    path.write_bytes(Path(os.__file__).read_bytes()[:40_000])
    return path


def small(text: Path, changes: Mapping[str, object] | None = None) -> Run:
    """12 updates, validations before 0, 4, 8 and after the last, readings at 0, 3, 6, 9."""
    run = Run(
        steps=12,
        batch_size=4,
        micro_batch_size=4,
        eval_every=4,
        telemetry_every=3,
        model=TransformerConfig(width=16, depth=2, head_dim=8, max_positions=16),
        data=Data(name="text", path=str(text), sequence_length=16, validation_sequences=8),
        schedule=Schedule(warmup_steps=2),
    )
    return override(run, changes or {})


def follow(run: Run) -> tuple[Outcome, Rows, Training]:
    """Trains to the end; every value that the sink is given must be a finite number."""
    rows: Rows = []
    training = Training(run, lambda step, row: rows.append((step, dict(row))), device="cpu")
    outcome = finish(training)
    assert_finite(rows)
    return outcome, rows, training


def finish(training: Training) -> Outcome:
    """Each slice makes an update, so more slices than steps mean a run that doesn't end."""
    for _ in range(training.run.steps):
        if training.outcome is None:
            training.advance()
    assert training.outcome is not None
    return training.outcome


def assert_finite(rows: Rows) -> None:
    for step, row in rows:
        for name, value in row.items():
            assert isinstance(value, int | float), (step, name)
            assert math.isfinite(value), (step, name)


def without_time(rows) -> list:
    return [[step, {k: v for k, v in row.items() if k != "seconds"}] for step, row in rows]


def digest(training: Training) -> str:
    """Hash of all weights, bit for bit."""
    return hashlib.sha256(training.flat.values.detach().numpy().tobytes()).hexdigest()


# Models of a user: frozen configs with build(), no base class.


@dataclass(frozen=True)
class Bigram:
    """No taps, no `max_positions`, no `vocab_size`."""

    dropout: float = 0.0

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Embedding(256, 16), nn.Dropout(self.dropout), nn.Linear(16, 256, bias=False)
        )


@dataclass(frozen=True)
class Breaks:
    """A bigram model that goes wrong at one forward pass, in training or in validation."""

    at: int
    value: float
    training: bool = True
    tap: bool = False

    def build(self) -> nn.Module:
        return BreaksModule(self)


class BreaksModule(nn.Module):
    def __init__(self, config: Breaks):
        super().__init__()
        self.config, self.seen = config, 0
        self.head = nn.Embedding(256, 256)
        self.tap = Tap("logits") if config.tap else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.head(tokens)
        if self.training == self.config.training:
            if self.seen == self.config.at:
                logits = logits * 0 + self.config.value
                # The other classes: a loss of +inf, since the targets' probability is 0.
                logits = logits.index_fill(-1, torch.tensor([0]), 0.0)
            self.seen += 1
        out = self.tap(logits)
        return out[0] if isinstance(out, tuple) else out


# Rows


def test_each_row_describes_its_update(text):
    run = small(text)
    outcome, rows, _ = follow(run)
    assert [step for step, _ in rows] == list(range(13))
    for step, row in rows[:-1]:
        assert {"loss", "grad_norm", "lr", "tokens_seen", "seconds"} <= set(row)
        assert ("val_loss" in row) == (step in (0, 4, 8))
        assert ("max_attention_logit" in row) == (step % 3 == 0)
        assert row["tokens_seen"] == 4 * 16 * step
    assert set(rows[-1][1]) == {"val_loss", "tokens_seen", "seconds"}
    assert rows[-1][1]["tokens_seen"] == 4 * 16 * 12
    assert rows[0][1]["val_loss"] == outcome.loss_at_init
    assert rows[-1][1]["val_loss"] == outcome.final_val_loss
    seconds = [row["seconds"] for _, row in rows]
    assert seconds == sorted(seconds)
    assert (outcome.outcome, outcome.step) == ("finished", 12)
    assert outcome.reason == "all 12 steps done"
    assert outcome.value is None
    assert outcome.seconds >= seconds[-1] > 0


def test_the_last_step_is_validated_even_off_the_beat(text):
    outcome, rows, _ = follow(small(text, {"eval_every": 5}))
    assert [step for step, row in rows if "val_loss" in row] == [0, 5, 10, 12]
    assert outcome.final_val_loss == rows[-1][1]["val_loss"]


def test_readings_hold_every_documented_column(text):
    _, rows, _ = follow(small(text, {"probes": PROBES, "model.qk_norm": True}))
    kinds = {"embedding", "attention_norm", "qkv", "attention_out", "q_norm", "k_norm", "mlp_norm"}
    kinds |= {"mlp_in", "mlp_out", "final_norm", "head"}
    expected = {
        *("loss", "val_loss", "lr", "grad_norm", "tokens_seen", "seconds"),
        *("max_attention_logit", "attention_entropy", "log_z_mean", "logits_rms"),
        *(f"{c}_layer{i}" for c in ("max_attention_logit", "output_norm_rms") for i in range(2)),
        *(f"{what}_rms_{kind}" for what in ("grad", "param", "update") for kind in kinds),
    }
    assert set(rows[0][1]) == expected
    assert set(rows[3][1]) == expected - {"val_loss"}


def test_losses_are_those_of_the_model_on_its_batches(text):
    run = small(text)
    torch.manual_seed(run.seed)
    model = run.model.build()
    _, rows, training = follow(run)
    with torch.no_grad():
        for key, (inputs, targets) in (
            ("loss", training.stream.batch(run.seed, 0)),
            ("val_loss", training.stream.validation),
        ):
            expected = float(cross_entropy(model(inputs), targets))
            assert rows[0][1][key] == pytest.approx(expected, abs=1e-5)
        inputs, targets = training.stream.validation
        final = float(cross_entropy(training.model(inputs), targets))
    assert rows[-1][1]["val_loss"] == pytest.approx(final, abs=1e-5)


def test_one_update_is_the_one_computed_by_hand(text):
    """Sign step of Adam's first update, clipped, with z-loss and decay."""
    run = small(
        text,
        {
            "loss.z_loss": 0.01,
            "steps": 1,
            "schedule.warmup_steps": 0,
            "optimizer.weight_decay": 0.1,
            "optimizer.epsilon": 1e-3,
        },
    )
    torch.manual_seed(run.seed)
    model = run.model.build()
    outcome, rows, training = follow(run)
    inputs, targets = training.stream.batch(run.seed, 0)
    logits = model(inputs)
    loss = cross_entropy(logits, targets)
    (loss + 0.01 * z_loss(logits)).backward()
    g = torch.cat([p.grad.flatten() for p in model.parameters()])
    norm = float(g.norm())
    assert norm > 1
    assert rows[0][1]["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert rows[0][1]["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
    g = g / norm
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    expected = theta - 1e-2 * g / (g.abs() + 1e-3) - 0.1 * theta
    torch.testing.assert_close(training.flat.values.detach(), expected, rtol=0, atol=1e-5)
    assert outcome.outcome == "finished"


def test_training_learns(text):
    outcome, rows, _ = follow(small(text, {"steps": 60, "eval_every": 30}))
    assert outcome.final_val_loss < outcome.loss_at_init - 1.5
    assert outcome.objective == outcome.final_val_loss == rows[-1][1]["val_loss"]
    # In sight of what a model without context gets.
    assert abs(outcome.final_val_loss - outcome.reference_loss) < 1
    assert len(outcome.data_sha256) == 64


def test_validation_loss_never_includes_z_loss(text):
    runs = [follow(small(text, {"loss.z_loss": c})) for c in (0.0, 0.5)]
    (plain, plain_rows, without), (penalised, rows, with_penalty) = runs
    assert plain.loss_at_init == penalised.loss_at_init
    assert plain_rows[0][1]["loss"] == rows[0][1]["loss"]
    assert plain_rows[0][1]["grad_norm"] != rows[0][1]["grad_norm"]
    assert digest(without) != digest(with_penalty)
    inputs, targets = with_penalty.stream.validation
    with torch.no_grad():
        final = float(cross_entropy(with_penalty.model(inputs), targets))
    assert penalised.final_val_loss == pytest.approx(final, abs=1e-5)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_add_up_to_the_batch(text, micro):
    """Epsilon 1e-4, so that a gradient of 1e-9 can't flip the sign of an update."""
    changes = {"batch_size": 8, "loss.z_loss": 0.01, "optimizer.epsilon": 1e-4}
    runs = [follow(small(text, {**changes, "micro_batch_size": size})) for size in (8, micro)]
    (_, whole_rows, whole), (_, parts_rows, parts) = runs
    for (_, row), (_, other) in zip(whole_rows, parts_rows, strict=True):
        for name in {"loss", "val_loss", "grad_norm", "max_attention_logit"} & set(row):
            assert other[name] == pytest.approx(row[name], abs=1e-5), name
    torch.testing.assert_close(parts.flat.values, whole.flat.values, rtol=0, atol=1e-5)


def test_readings_change_no_bit_of_the_training(text):
    """Taps watched at every step, or never again after the first."""
    often, seldom = (follow(small(text, {"telemetry_every": n}))[2] for n in (1, 1000))
    assert digest(often) == digest(seldom)


# Bits


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


CHILD = """
import hashlib, json, resource, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from models import TransformerConfig
from tuner.config import Loss, Optimizer, Run, Schedule
from tuner.data import Data
from tuner.train import Training

def go(run, restore):
    rows = []
    sink = lambda step, row: rows.append([step, dict(row)])
    training = Training(run, sink, device="cpu", restore=restore)
    while training.outcome is None:
        training.advance()
    weights = training.flat.values.detach().numpy().tobytes()
    return [rows, hashlib.sha256(weights).hexdigest(), training.outcome.record("r")]

run, folder = eval(sys.argv[1]), Path(sys.argv[2])
"""


def child(script: str, run: Run, folder: Path) -> subprocess.CompletedProcess[str]:
    """A new process; the repr of a Run is the Run."""
    command = [sys.executable, "-c", CHILD + textwrap.dedent(script), repr(run), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


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
    mine = outcome.record("r")
    for other in (record, again_record):
        assert {**other, "seconds": 0} == {**mine, "seconds": 0}
    seconds = [row["seconds"] for _, row in [*before, *after]]
    assert seconds == sorted(seconds)


# Resume


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


# Divergence


def test_a_huge_learning_rate_ends_with_a_finite_objective(text):
    for lr in (1e3, 1e30):
        outcome, rows, _ = follow(small(text, {"optimizer.lr": lr}))
        assert outcome.outcome in ("diverged", "finished")
        assert math.isfinite(outcome.objective)
        assert outcome.objective <= outcome.loss_at_init
        json.dumps(outcome.record("r"), allow_nan=False)
        assert rows[-1][0] <= outcome.step
    assert outcome.diverged


@pytest.mark.parametrize("telemetry_every", [1, 1000])
def test_epsilon_zero_diverges_with_tensor_and_step(text, telemetry_every):
    """A byte that a batch lacks has gradient 0, and 0 / 0 follows."""
    changes = {"optimizer.epsilon": 0.0, "telemetry_every": telemetry_every}
    outcome, _, _ = follow(small(text, changes))
    assert outcome.diverged
    assert outcome.step == 0
    assert outcome.tensor == "update_rms_embedding"
    assert math.isnan(outcome.value)
    assert outcome.reason == (
        "update_rms_embedding became nan at step 0; first not finite: weight embedding.weight"
    )
    assert outcome.objective == outcome.loss_at_init


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_user_s_model_that_breaks_at_step_7_diverges_at_step_7(text, value):
    outcome, rows, training = follow(small(text, {"model": Breaks(at=7, value=value)}))
    assert (outcome.outcome, outcome.step, outcome.tensor) == ("diverged", 7, "loss")
    assert not math.isfinite(outcome.value)
    assert outcome.reason.startswith(f"loss became {outcome.value} at step 7")
    assert outcome.objective == outcome.loss_at_init == training.objective
    assert outcome.final_val_loss == rows[4][1]["val_loss"]
    assert [step for step, _ in rows][:7] == list(range(7))
    assert all("loss" not in row for step, row in rows if step >= 7)


def test_the_row_of_the_divergence_keeps_its_finite_values(text):
    outcome, rows, _ = follow(small(text, {"model": Breaks(at=8, value=math.nan)}))
    assert (outcome.step, outcome.tensor) == (8, "loss")
    step, row = rows[-1]
    assert step == 8
    assert set(row) == {"val_loss", "tokens_seen", "seconds"}
    assert outcome.final_val_loss == row["val_loss"]


def test_a_reading_names_the_cause_before_the_loss_it_spoiled(text):
    model = Breaks(at=6, value=math.nan, tap=True)
    outcome, rows, _ = follow(small(text, {"model": model}))
    assert (outcome.outcome, outcome.step) == ("diverged", 6)
    assert outcome.tensor in ("log_z_mean", "logits_rms")
    assert rows[-1][0] == 6
    assert "param_rms_head" in rows[-1][1]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_validation_loss_that_is_not_finite_is_a_divergence(text, value):
    """The third validation: before step 8."""
    model = Breaks(at=2, value=value, training=False)
    outcome, rows, _ = follow(small(text, {"model": model}))
    assert (outcome.outcome, outcome.step, outcome.tensor) == ("diverged", 8, "val_loss")
    assert outcome.value == math.inf if value == -math.inf else math.isnan(outcome.value)
    assert outcome.final_val_loss == rows[4][1]["val_loss"]
    assert outcome.objective == outcome.loss_at_init
    assert rows[-1][0] == 7


def test_a_loss_at_init_that_is_not_finite_is_a_divergence_at_step_0(text):
    model = Breaks(at=0, value=math.nan, training=False)
    outcome, rows, training = follow(small(text, {"model": model}))
    assert (outcome.outcome, outcome.step, outcome.tensor) == ("diverged", 0, "val_loss")
    assert outcome.loss_at_init is None
    assert outcome.objective == training.objective == NO_LOSS
    assert rows == []


@pytest.mark.parametrize("parameter", ["attention.qkv.weight", "mlp.mlp_in.weight"])
def test_a_weight_that_breaks_between_readings_ends_the_run_at_the_next_step(text, parameter):
    """Over few keys torch's fused attention hides a nan query from the loss, not the gradient."""
    run = small(text, {"telemetry_every": 1000, "data.sequence_length": 12})
    rows: Rows = []
    training = Training(run, lambda s, m: rows.append((s, dict(m))), device="cpu")
    training.advance()
    with torch.no_grad():
        training.model.get_parameter(f"blocks.1.{parameter}")[0, 0] = math.nan
    outcome = finish(training)
    assert_finite(rows)
    assert (outcome.outcome, outcome.step) == ("diverged", 4)
    assert outcome.tensor in ("loss", "grad_norm")
    assert outcome.reason.endswith(f"first not finite: weight blocks.1.{parameter}")


# Objective, precision, devices, users' models


def test_the_objective_while_training_is_finite_and_never_above_the_loss_at_init(text):
    training = Training(small(text), lambda s, m: None, device="cpu")
    assert training.objective == NO_LOSS
    while training.outcome is None:
        training.advance()
        assert training.objective == min(training.val_loss, training.loss_at_init)
    assert training.objective == training.outcome.objective


def test_a_run_that_got_worse_than_its_start_counts_as_its_start(text):
    outcome, rows, _ = follow(small(text, {"optimizer.lr": 1.0, "steps": 4}))
    assert rows[-1][1]["val_loss"] > outcome.loss_at_init
    assert outcome.outcome == "finished"
    assert outcome.objective == outcome.loss_at_init


def test_bfloat16_trains_and_differs_from_float32(text):
    changes = {"steps": 40, "eval_every": 40}
    full, full_rows, _ = follow(small(text, changes))
    half, half_rows, training = follow(small(text, {**changes, "precision": "bfloat16"}))
    assert half.outcome == "finished"
    assert half_rows[0][1]["loss"] != full_rows[0][1]["loss"]
    assert half_rows[0][1]["loss"] == pytest.approx(full_rows[0][1]["loss"], abs=0.05)
    assert half.final_val_loss < half.loss_at_init - 1.5
    assert half.final_val_loss == pytest.approx(full.final_val_loss, abs=0.1)
    assert training.flat.values.dtype == torch.float32
    reading, full_reading = half_rows[3][1], full_rows[3][1]
    for name in ("max_attention_logit", "log_z_mean", "logits_rms"):
        assert reading[name] == pytest.approx(full_reading[name], rel=0.05)


def test_a_user_s_model_without_taps_trains_and_has_no_tap_columns(text):
    outcome, rows, training = follow(small(text, {"model": Bigram(), "steps": 40}))
    assert outcome.outcome == "finished"
    assert outcome.final_val_loss < outcome.loss_at_init
    columns = {name for _, row in rows for name in row}
    taps = ("max_attention", "attention_entropy", "log_z", "logits_rms", "output_norm")
    assert not [name for name in columns if name.startswith(taps)]
    assert {"loss", "val_loss", "grad_norm", "lr", "tokens_seen", "seconds"} <= columns
    assert training.model.training


def test_a_probe_that_the_model_has_no_tap_for_is_refused(text):
    run = small(text, {"model": Bigram(), "probes": ("logits",)})
    with pytest.raises(ValueError, match="probes must each have a tap in the model, got none"):
        train(run, lambda s, m: None, device="cpu")


def test_validation_runs_in_evaluation_mode(text):
    """Dropout would make each validation random: here two of the same weights are equal."""
    run = small(text, {"model": Bigram(dropout=0.9)})
    torch.manual_seed(run.seed)
    model = run.model.build().eval()
    outcome, _, training = follow(run)
    inputs, targets = training.stream.validation
    with torch.no_grad():
        expected = float(cross_entropy(model(inputs), targets))
    assert outcome.loss_at_init == pytest.approx(expected, abs=1e-5)


def test_validation_in_parts_equals_validation_at_once(text):
    """300 windows of 16 don't divide into parts of 128: the mean is over windows, not parts."""
    outcome, _, training = follow(small(text, {"data.validation_sequences": 300}))
    inputs, targets = training.stream.validation
    with torch.no_grad():
        expected = float(cross_entropy(training.model(inputs), targets))
    assert outcome.final_val_loss == pytest.approx(expected, abs=1e-5)


def test_stopping_from_outside_sends_no_half_row_and_keeps_the_loss(text):
    rows: Rows = []
    training = Training(small(text), lambda s, m: rows.append((s, dict(m))), device="cpu")
    training.advance()
    reached = training.val_loss
    training.end("stopped", "by a scheduler")
    assert (training.outcome.outcome, training.outcome.step) == ("stopped", 4)
    assert training.outcome.objective == min(reached, training.loss_at_init)
    assert rows[-1][0] == 4
    assert set(rows[-1][1]) == {"val_loss", "tokens_seen", "seconds"}


def test_auto_is_the_gpu_where_there_is_one_and_a_missing_one_is_refused():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device must be there, got cuda:0 .*; use cpu.$"):
            pick_device("cuda:0")
