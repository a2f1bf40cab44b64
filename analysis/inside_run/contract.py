"""The contract of a forecast inside a run: what a predictor is given, and what it answers.

A predictor is called with `history`, the telemetry rows of one run up to now and never beyond
(columns of `analysis.records.schema.TELEMETRY_COLUMNS`, any of which may be missing; NaN where a
step has no reading; a column `sweep_loss` may hold the median loss of the sweep's other runs at
that step), and with `context`: `n_params`, `lr` (peak), `total_steps`, `loss_at_init`,
`reference_loss`, and the config's fields by dotted path, any of which may be missing but
`total_steps`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from foretune.analysis.stats.status import Status


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a run."""

    probability: float
    """That the run ends unstable, in 0..1; NaN where the predictor can't tell. Baselines that only
    rank squash their score into 0..1: then only the order means something."""
    step: float
    """Step by which the damage is expected to show; NaN where nothing is said."""
    reason: str
    """A clause that gives the number the forecast rests on."""
    status: Status = Status.ok()  # noqa: RUF009 - text, so as immutable as any
    """`ok`, or `cannot tell: ` and why; plain text becomes one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))


class Predictor(Protocol):
    """Anyone's rule: a function, or an object with a call."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast: ...


def cannot_tell(why: str) -> Forecast:
    """Returns the forecast that says nothing."""
    return Forecast(math.nan, math.nan, why, Status.cannot_tell(why))


def rank(probability: float, reason: str) -> Forecast:
    """Returns the forecast of a baseline that only ranks: the order means something, no step."""
    return Forecast(float(probability), math.nan, reason)
