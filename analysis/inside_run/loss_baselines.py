"""Baselines that read the course of the training loss, as early stopping usually does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, cannot_tell, rank
from foretune.analysis.stats.series import LARGEST, number, readings, smoothed, squashed

EXPONENTS: Final = np.geomspace(0.05, 2.0, 16)
"""Exponents c that a power law a + b t^-c is fitted with."""


@dataclass(frozen=True, slots=True)
class LossAgainstSweep:
    """Ranks by the smoothed loss minus the sweep's median loss, both now.

    Means over the last 10 steps that have both. What median stopping compares (Golovin et al.
    2017). Unit: nats.
    """

    scale: float = 0.1
    """Nats that score three quarters."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        steps, losses = readings(history, "loss")
        sweep_steps, sweep = readings(history, "sweep_loss")
        _, own, others = np.intersect1d(steps, sweep_steps, return_indices=True)
        if not len(own):
            return cannot_tell("no loss of the sweep's other runs to compare with")
        above = float(smoothed(losses[own] - sweep[others])[-1])
        return rank(squashed(above, self.scale), f"loss {above:+.3g} nats from the sweep's median")


@dataclass(frozen=True, slots=True)
class LossSlope:
    """Ranks by the slope of the smoothed loss over the last third of the prefix.

    Least squares; rising is risky. Unit: nats per tenth of the schedule (`total_steps`), so that
    budgets compare.
    """

    scale: float = 0.1
    """Nats per tenth of the schedule that score three quarters."""
    least: int = 12
    """Losses without which nothing is said."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        steps, losses = readings(history, "loss")
        total = number(context, "total_steps")
        if len(losses) < self.least or not total > 0:
            return cannot_tell(f"{len(losses)} losses, {self.least} and total_steps are needed")
        last = len(losses) - max(4, len(losses) // 3)
        x, y = steps[last:] - steps[last:].mean(), smoothed(losses)[last:]
        if not np.ptp(x) > 0:
            return cannot_tell("losses of one step only")
        slope = float(np.clip(x @ (y - y.mean()) / (x @ x) * total / 10, -LARGEST, LARGEST))
        return rank(squashed(slope, self.scale), f"loss slope {slope:+.3g} nats per tenth")


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Ranks by the loss that a power law a + b (t + 1)^-c, fitted to the smoothed loss, reaches.

    Least squares over a, b and 16 exponents c (pow3 of Domhan et al. 2015), from the end of warm-up
    on where 12 losses lie there. P = L / (L + L0): L the value at `total_steps`, at least 0; L0
    `reference_loss`, the loss of who knows frequencies only, or `loss_at_init` without it.
    """

    least: int = 12
    """Losses without which nothing is said."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        steps, losses = readings(history, "loss")
        total = number(context, "total_steps")
        reference = number(context, "reference_loss", "loss_at_init")
        if len(losses) < self.least or not total > 0 or not reference > 0:
            return cannot_tell(
                f"{len(losses)} losses; {self.least}, total_steps and reference_loss are needed"
            )
        warmup = number(context, "schedule.warmup_steps")
        fitted = steps >= max(0.0, warmup)
        if fitted.sum() < self.least:
            fitted = steps >= 0
        if fitted.sum() < self.least:
            return cannot_tell(
                f"{int(fitted.sum())} losses from step 0 on, {self.least} are needed"
            )
        projected = power_law_at(total, steps[fitted], smoothed(losses)[fitted])
        projected = float(np.clip(projected, 0.0, LARGEST))
        share = projected / (projected + reference)
        return rank(share, f"loss {projected:.3g} projected against {reference:.3g}")


def power_law_at(step: float, steps: np.ndarray, values: np.ndarray) -> float:
    """Returns at a step the a + b (t + 1)^-c that fits values best; all steps at least 0."""
    best, projected = math.inf, math.nan
    mean = float(values.mean())
    for exponent in EXPONENTS:
        decay = (steps + 1) ** -exponent
        centre = float(decay.mean())
        spread = float(np.square(decay - centre).sum())
        b = float((decay - centre) @ (values - mean)) / spread if spread > 1e-18 else 0.0
        residual = float(np.square(values - mean - b * (decay - centre)).sum())
        if residual < best:
            best, projected = residual, mean + b * ((step + 1) ** -exponent - centre)
    return projected
