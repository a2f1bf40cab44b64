"""Runs of seconds on real text, and what a test reads of them."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from foretune.models import TransformerConfig
from foretune.tuner.config.optimizer import Schedule
from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.training.outcome import Outcome
from foretune.tuner.training.train import Training

torch.set_num_threads(1)
Rows = list[tuple[int, dict[str, float]]]


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


def follow_in_two(run: Run, folder: Path, *, slices: int) -> tuple[Rows, Training]:
    """Trains some slices, then on to the end from the checkpoint that they left; rows of both."""
    rows: Rows = []
    first = Training(run, lambda step, row: rows.append((step, dict(row))), device="cpu")
    for _ in range(slices):
        first.advance()
    first.save(folder)
    assert [step for step, _ in rows] == list(range(first.step))
    second = Training(
        run, lambda step, row: rows.append((step, dict(row))), device="cpu", restore=folder
    )
    finish(second)
    assert_finite(rows)
    return rows, second


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


@dataclass(frozen=True)
class Bigram:
    """A user's own model: no base class, no taps, no `max_positions`, no `vocab_size`."""

    dropout: float = 0.0

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Embedding(256, 16), nn.Dropout(self.dropout), nn.Linear(16, 256, bias=False)
        )
