"""How a run ended: a typed value, never an exception and never a number that is not one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

OUTCOMES = ("finished", "diverged", "stopped", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a run."""

    outcome: str
    """finished, diverged, stopped (by a scheduler or a forecast) or failed (an error)."""
    step: int
    """Updates done."""
    reason: str
    """A sentence."""
    tensor: str = ""
    """What was not finite, for diverged: loss, grad_norm, val_loss or a telemetry column."""
    value: float | None = None
    """Its value (nan, inf or -inf)."""
    loss_at_init: float | None = None
    """Validation loss before the first update, in nats; none if it was not reached or finite."""
    final_val_loss: float | None = None
    """Newest finite validation loss, in nats."""
    seconds: float = 0.0
    """Seconds of training, all attempts together: build, validation and telemetry included."""
    data_sha256: str = ""
    """Hash of the tokens it saw."""
    reference_loss: float | None = None
    """Unigram cross-entropy of the validation text in nats: what a model without context gets."""
    forecast: Mapping[str, Any] | None = None
    """What a `Judge` forecast when it would have ended the run; none where it never would."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}, got {self.outcome!r}.")

    @property
    def diverged(self) -> bool:
        """Whether something stopped being finite."""
        return self.outcome == "diverged"

    @property
    def objective(self) -> float:
        """The finite number that a searcher or scheduler sees; see `objective`."""
        return objective(
            self.loss_at_init,
            self.final_val_loss,
            lost=self.outcome in ("diverged", "failed"),
        )


class Judge(Protocol):
    """Ends runs before their time: is called with every row of one run, in order."""

    @property
    def forecast(self) -> Mapping[str, Any] | None:
        """What it forecast when it would have ended the run, as JSON values; none before."""
        ...

    def __call__(self, step: int, row: Mapping[str, float]) -> str:
        """Takes in a row; returns why the run ends with it, or nothing where it goes on."""
        ...


NO_LOSS = 1e3
"""Objective of a run that failed before its first validation, in nats: finite, never the best."""


def objective(loss_at_init: float | None, val_loss: float | None, *, lost: bool = False) -> float:
    """Returns min(newest validation loss, loss at init); the loss at init once the run is lost."""
    if loss_at_init is None:
        return NO_LOSS
    if lost or val_loss is None:
        return loss_at_init
    return min(val_loss, loss_at_init)
