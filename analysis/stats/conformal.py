"""Where to stop so that at most a chosen share of healthy runs is stopped: split conformal.

The unit is the run: its score is the maximum over its steps. Sequential tests per step (SPRT,
e-values) would be invalid, since the readings of a run depend on each other: at a nominal 5 % they
stop 61 % of simulated AR(0.9) series.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretune.analysis.stats.status import Status


@dataclass(frozen=True, slots=True)
class StopThreshold:
    """A stop threshold: a run is stopped once its score is above `value`."""

    value: float
    """In the score's unit; NaN where the runs cannot tell: nothing is above it, so nothing stops.
    Minus infinity stops on any score."""
    alpha: float
    """Share of healthy runs that may be stopped."""
    n: int
    """Healthy runs it was calibrated on."""
    status: Status
    """Ok or cannot tell, and why."""


def stop_threshold(healthy_maxima: Any, *, alpha: float) -> StopThreshold:
    """Returns the threshold that a new healthy run passes with probability at most alpha.

    healthy_maxima holds `run_maximum` of each healthy calibration run, runs that neither the score
    nor anything else was fitted on. The threshold is the k-th smallest, k = ceil((1 - alpha)(n +
    1)) (Vovk et al. 2005; Lei et al. 2018), so 1 / alpha - 1 runs are needed: 19 for 0.05, 99 for
    0.01. The promise is an average over calibration sets, for runs exchangeable with these: other
    sizes must be checked, and runs that come in clusters should give the maximum of each cluster.
    ValueError for an alpha outside 0..1 or a maximum of NaN.
    """
    maxima = np.asarray(healthy_maxima, float)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha:g}; 0.05 is usual.")
    if maxima.ndim != 1 or np.isnan(maxima).any():
        raise ValueError(
            "healthy_maxima must be a row of numbers, one per run; a run without any score has "
            "the maximum -inf, as run_maximum gives it."
        )
    n, needed = len(maxima), _ceil(1 / alpha - 1)
    if n < needed:
        status = Status.cannot_tell(f"alpha {alpha:g} needs {needed} healthy runs, got {n}")
        return StopThreshold(math.nan, alpha, n, status)
    k = _ceil((1 - alpha) * (n + 1))
    status = Status.ok(f"number {k} of {n} healthy runs' maxima in rising order")
    return StopThreshold(float(np.sort(maxima)[k - 1]), alpha, n, status)


def run_maximum(scores: Any) -> float:
    """Returns a run's largest score, leaving out NaN; -inf where it has none."""
    values = np.asarray(scores, float)
    return float(np.max(values[~np.isnan(values)], initial=-math.inf))


def first_crossing(steps: Any, scores: Any, threshold: float) -> float:
    """Returns the first step whose score is above threshold (at it is not), NaN where none is.

    Scores and thresholds of NaN never cross. ValueError unless there is a score per step and steps
    rise.
    """
    step, score = np.asarray(steps, float), np.asarray(scores, float)
    if step.ndim != 1 or step.shape != score.shape:
        raise ValueError(f"every step must have a score, got {step.shape} and {score.shape}.")
    if not (np.diff(step) > 0).all():
        raise ValueError("steps must rise, or the first crossing isn't the earliest; sort the run.")
    above = np.flatnonzero(score > threshold)
    return float(step[above[0]]) if len(above) else math.nan


def _ceil(value: float) -> int:
    """The integer at or above value, blind to rounding: (1 - 0.18) * 150 is 123.00000000000001."""
    return math.ceil(value - 1e-9)
