"""Divergence is a typed outcome with step, tensor and value, and the objective stays finite."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from short_runs import Rows, assert_finite, finish, follow, small
from torch import Tensor, nn

from foretune.models import Tap
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.training.outcome import NO_LOSS
from foretune.tuner.training.train import Training


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


def test_a_huge_learning_rate_ends_with_a_finite_objective(text):
    for lr in (1e3, 1e30):
        outcome, rows, _ = follow(small(text, {"optimizer.lr": lr}))
        assert outcome.outcome in ("diverged", "finished")
        assert math.isfinite(outcome.objective)
        assert outcome.objective <= outcome.loss_at_init
        json.dumps(RunEnd.of("r", outcome).to_json(), allow_nan=False)
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
