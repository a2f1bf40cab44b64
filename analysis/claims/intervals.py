"""Intervals of what a figure shows: means over sizes and seeds, and slopes.

All are Student's t whose variance starts from what seeds are known to do, worth
`SEED_SD_WORTH` seeds, as in `analysis.measures.sensitivity`; so one seed has an interval as well.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import special

from foretune.analysis.measures.sensitivity import SEED_SD_WORTH
from foretune.analysis.stats.regression import Prior, regress

LEVEL: Final = 0.9
ODDITY: Final = 0.5
"""Variance shared by all seeds of a size and learning rate, relative to that between seeds."""
WIDE: Final = 100.0
"""Prior standard deviation of a coefficient: it says nothing."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its interval; `reason` says why where it is not known (and is NaN)."""

    value: float
    low: float
    high: float
    n_seeds: int = 0
    n_sizes: int = 0
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return math.isfinite(self.value) and math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def sign(self) -> int:
        """1 above zero, -1 below, 0 where the interval holds zero or nothing is known."""
        if not self.known:
            return 0
        return 1 if self.low > 0 else (-1 if self.high < 0 else 0)


def unknown(reason: str) -> Interval:
    """No number, and why."""
    return Interval(math.nan, math.nan, math.nan, reason=reason)


def pooled(groups: Iterable[Any], *, sd: float, level: float = LEVEL) -> Interval:
    """The mean over groups (sizes) of their means over seeds.

    `groups` are arrays of one value per seed; what isn't finite is left out. `sd` is the prior
    standard deviation between seeds. Sizes are what they are, so only seeds make noise.
    """
    arrays = [np.asarray(group, float) for group in groups]
    kept = [array[np.isfinite(array)] for array in arrays]
    kept = [array for array in kept if len(array)]
    if not kept:
        return unknown("no seed has the numbers")
    means = np.array([array.mean() for array in kept])
    counts = np.array([len(array) for array in kept])
    df = SEED_SD_WORTH + int((counts - 1).sum())
    squares = SEED_SD_WORTH * sd**2 + sum(float(((a - a.mean()) ** 2).sum()) for a in kept)
    error = math.sqrt(squares / df * float((1 / counts).sum())) / len(kept)
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    mean = float(means.mean())
    return Interval(mean, mean - half, mean + half, int(counts.max()), len(kept))


def slope(
    frame: pd.DataFrame,
    *,
    noise: float,
    within: str = "",
    against: str = "",
    level: float = LEVEL,
) -> Interval:
    """The slope of `y` in `x` over all rows, with an intercept for each value of `within`.

    `frame` has columns `x` and `y` (or `low` and `high` where y is known as a range only), `seed`
    and `rung`. With `against`, a boolean column, it is the slope where true minus that where false.
    `noise` is the prior standard deviation of a row between seeds, in the units of y.
    """
    rows = frame[np.isfinite(frame["x"].to_numpy(float)) & _known(frame)]
    if len(rows) == 0 or _distinct(rows, within, against) < 2:
        return unknown("it takes two points or more along the axis")
    keys = [name for name in (within, against) if name]
    code = _codes(rows, keys)
    x = rows["x"].to_numpy(float)
    columns = [code == value for value in range(code.max() + 1)] + [x - x.mean()]
    if against:
        columns.append((x - x.mean()) * rows[against].to_numpy(bool))
    design = np.stack(columns, axis=1).astype(float)
    low, high = (rows[n if n in rows else "y"].to_numpy(float) for n in ("low", "high"))
    width = design.shape[1]
    prior = Prior((0.0,) * width, (WIDE,) * width, noise, SEED_SD_WORTH, ODDITY)
    groups = _codes(rows, [*keys, "x"])
    found = regress(design, low, high, groups, prior).coefficient(width - 1, level)
    return Interval(*found, n_seeds=rows["seed"].nunique(), n_sizes=rows["rung"].nunique())


def _known(frame: pd.DataFrame) -> np.ndarray:
    if "low" in frame:
        low, high = frame["low"].to_numpy(float), frame["high"].to_numpy(float)
        return (np.isfinite(low) | np.isfinite(high)) & ~np.isnan(low) & ~np.isnan(high)
    return np.isfinite(frame["y"].to_numpy(float))


def _distinct(rows: pd.DataFrame, within: str, against: str) -> int:
    """The most points along x inside one curve; with `against`, of the side that has fewer."""

    def most(part: pd.DataFrame) -> int:
        if part.empty:
            return 0
        return int(part.groupby(within)["x"].nunique().max() if within else part["x"].nunique())

    if not against:
        return most(rows)
    chosen = rows[against].to_numpy(bool)
    return min(most(rows[chosen]), most(rows[~chosen]))


def _codes(rows: pd.DataFrame, names: list[str]) -> np.ndarray:
    if not names:
        return np.zeros(len(rows), int)
    return rows.groupby(names, sort=True).ngroup().to_numpy(int)
