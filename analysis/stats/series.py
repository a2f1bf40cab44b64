"""What a predictor reads of a history and its context, whatever is missing or broken there.

NaN is a step without a reading and is left out. An infinite reading is one of `LARGEST`, so that
what rises with a signal still does.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

LARGEST: Final = 1e30
"""Stands for infinity; its square is still a number."""
SMOOTHING: Final = 10
"""Steps of the moving mean that smooths a training loss."""
FEW: Final = 3
"""Readings that are taken together as what a signal is now."""


def readings(history: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and the values where a column has readings, as float64.

    Steps are counted from 0 where there is no column `step`.
    """
    if column not in history:
        return np.empty(0), np.empty(0)
    values = _numbers(history[column])
    steps = _numbers(history["step"]) if "step" in history else np.arange(len(values), dtype=float)
    there = ~np.isnan(values) & np.isfinite(steps)
    return steps[there], np.clip(values[there], -LARGEST, LARGEST)


def _numbers(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=math.nan)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each value and up to 9 before it: the smoothing of the labels."""
    return pd.Series(values).rolling(SMOOTHING, min_periods=1).mean().to_numpy(float)


def level(values: np.ndarray) -> float:
    """Returns the geometric mean of the last 3 readings or fewer: of logs, for extremes are noisy.

    Values below 1e-6 count as that; NaN where there are none.
    """
    last = np.maximum(values[-FEW:], 1e-6)
    return float(np.exp(np.log(last).mean())) if len(last) else math.nan


def number(context: Mapping[str, Any], *names: str) -> float:
    """Returns the first finite number among these entries of the context, NaN without one."""
    for name in names:
        try:
            value = float(context.get(name, math.nan))
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(value):
            return value
    return math.nan


def squashed(score: float, scale: float) -> float:
    """Returns (1 + s / (scale + |s|)) / 2: a score of any sign in 0..1, 0.5 at 0, its order kept.

    Unlike a sigmoid it doesn't reach 1 in double precision while scores still differ.
    """
    return 0.5 * (1 + score / (scale + abs(score)))


def z_against_before(values: np.ndarray, *, window: int, least: int) -> np.ndarray:
    """Returns (x - mean) / std of up to `window` values before each, from the `least`-th on.

    Empty where there are no more than `least`; LARGEST above a constant past, 0 at its height.
    """
    before = pd.Series(values, dtype=float).shift(1).rolling(window, min_periods=least)
    above = (values - before.mean().to_numpy(float))[least:]
    spread = before.std().to_numpy(float)[least:]
    with np.errstate(over="ignore"):
        z = np.divide(above, spread, out=np.sign(above) * LARGEST, where=spread > 0)
    return np.clip(z, -LARGEST, LARGEST)
