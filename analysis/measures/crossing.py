"""Where a curve over learning rates meets a line: the critical learning rate, and what it rests on.

Four curves are read: a signal against its danger line; the loss above the best of its family, in
nats or as a share of what there is to lose; and the loss above a twin that has the cure. The first
says that a run is unstable, the others what that costs.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from foretune.analysis.measures.excess import DEGRADED, UNSTABLE, WORTH, excess
from foretune.analysis.stats.status import Trust

READ_WINDOW: Final = (0.75, 1.0)
"""Share of a run's steps over which a signal is read. The last quarter lies past warm-up, and past
the peak of the logits that a decaying learning rate leaves behind."""
BISECTIONS: Final = 50
"""Halvings of a grid step in which a smooth curve meets its line."""
FLOOR: Final = 1e-6
"""A signal at or below this share of its line counts as this share: logits can be zero at init."""


class Where(StrEnum):
    """Where a curve meets its line, as tables have it in a column of statuses."""

    CROSSED = "crossed"
    BELOW = "below the grid"
    """Past the line at every learning rate."""
    ABOVE = "above the grid"
    """Past it at none."""
    CANNOT_TELL = Trust.CANNOT_TELL.value


@dataclass(frozen=True, slots=True)
class Crossing:
    """The learning rate at which a curve meets a line, and the grid points that enclose it.

    Where it isn't crossed `value` is NaN, and `low` and `high` hold
    what the grid still says: the crossing is below its lowest or above its highest rate.
    """

    value: float
    low: float
    high: float
    status: Where


CANNOT_TELL: Final = Crossing(math.nan, math.nan, math.nan, Where.CANNOT_TELL)


def critical_lr(cells: pd.DataFrame, *, threshold: float, smooth: bool = False) -> Crossing:
    """Learning rate at which a signal meets a threshold, log-log between the enclosing rates.

    `cells` has columns `lr`, `value` (positive, as `read_signal` gives it) and optionally
    `censored`: a run that ended before the reading, whose signal would have grown to at least
    `value`. Values at one learning rate are averaged as logs; the curve is made monotone by
    isotonic regression, so there is one crossing. `smooth` joins its points by a curve without
    overshoot (Fritsch and Butland 1984) instead of straight lines, which on rates half a decade
    apart cross 0.02 to 0.05 decades too early, since signals bend upward there.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be positive and finite, got {threshold}; 100 is usual")
    points = _clean(cells, ("lr", "value"))
    height = np.log10(np.maximum(points["value"] / threshold, FLOOR))
    censored = points["censored"] if "censored" in points else np.zeros(len(points), bool)
    hidden = pd.Series(censored, index=points.index)
    found = _cross(points["lr"], height, 0.0, hidden)
    if found.status is not Where.CROSSED or not smooth:
        return found
    curve = height.groupby(points["lr"]).mean()
    rates, level = curve.index.to_numpy(float), isotonic_regression(curve.to_numpy(float)).x
    value = _smooth_crossing(rates, level, 0, 0.0)
    # A run that ended early past the line met it no later than here.
    return replace(found, value=value, high=value if found.high == found.value else found.high)


def above_best_lr(cells: pd.DataFrame, *, penalty: float = WORTH) -> Crossing:
    """Learning rate above the optimum at which the loss exceeds the curve's best by a penalty.

    `cells` has columns `lr` and `loss` (nats, capped at the loss at init). Needs no twin, but an
    optimum that lies between two grid points makes the loss above it look smaller than it is.
    """
    points = _clean(cells, ("lr", "loss")).groupby("lr", as_index=False)["loss"].mean()
    if len(points) < 2:
        return CANNOT_TELL
    best = points.loc[points["loss"].idxmin()]
    above = points[points["lr"] >= best["lr"]]
    if len(above) < 2:
        return Crossing(math.nan, float(best["lr"]), math.inf, Where.ABOVE)
    return _cross(above["lr"], above["loss"] - best["loss"], penalty)


def excess_crossing(cells: pd.DataFrame, level: float = UNSTABLE) -> Crossing:
    """Learning rate above the optimum at which the mean excess of `analysis.measures.excess` meets
    a level.

    `cells` has columns `lr`, `loss` and `reference_loss` (nats), of one size. The excess of seed
    means, made monotone above the optimum, is interpolated in log learning rate by a curve without
    overshoot (Fritsch and Butland 1984) that is flat at the optimum, as a loss is.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; {DEGRADED:g} is degraded")
    points = _clean(cells, ("lr", "loss", "reference_loss"))
    capped = points.assign(loss=np.fmin(points["loss"], points["reference_loss"]))
    means = capped.groupby("lr", as_index=False)[["loss", "reference_loss"]].mean()
    if len(means) < 2:
        return CANNOT_TELL
    best = means.loc[means["loss"].idxmin()]
    share = excess(means["loss"], best=best["loss"], reference=means["reference_loss"])
    rates = means["lr"].to_numpy(float)
    start = int((rates < best["lr"]).sum())
    if start == len(rates) - 1:
        return Crossing(math.nan, float(best["lr"]), math.inf, Where.ABOVE)
    found = _cross(pd.Series(rates[start:]), pd.Series(share[start:]), level)
    if found.status is not Where.CROSSED:
        return found
    share[start:] = isotonic_regression(share[start:]).x
    return replace(found, value=_smooth_crossing(rates, share, start, level))


def _smooth_crossing(rates: np.ndarray, heights: np.ndarray, start: int, line: float) -> float:
    """Where the smooth curve through the points meets a line, in the grid step that encloses it."""
    curve = PchipInterpolator(np.log10(rates), heights)
    first = start + int((heights[start:] >= line).argmax())
    low, high = np.log10(rates[first - 1 : first + 1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if curve(middle) < line else (low, middle)
    return float(10**high)


def penalty_lr(cells: pd.DataFrame, twin: pd.DataFrame, *, penalty: float = WORTH) -> Crossing:
    """Learning rate at which a family loses a penalty against its twin with the cure.

    Both frames have columns `lr` and `loss` (nats, capped at the loss at init); learning rates that
    only one of them has are left out.
    """
    means = [
        _clean(frame, ("lr", "loss")).groupby("lr")["loss"].mean().rename(name)
        for frame, name in ((cells, "without"), (twin, "with"))
    ]
    both = pd.concat(means, axis=1, join="inner").sort_index()
    return _cross(
        pd.Series(both.index), (both["without"] - both["with"]).reset_index(drop=True), penalty
    )


def _clean(cells: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    missing = set(columns) - set(cells.columns)
    if missing:
        raise ValueError(
            f"cells must have columns {', '.join(columns)}, got {list(cells.columns)}; add "
            f"{', '.join(sorted(missing))}"
        )
    finite = np.isfinite(cells[list(columns)].to_numpy(float)).all(axis=1)
    known = cells[finite]
    if not (known["lr"] > 0).all():
        raise ValueError(f"lr must be positive, got {known['lr'].min()}; remove that trial")
    return known


def _cross(
    lr: pd.Series, height: pd.Series, line: float, censored: pd.Series | None = None
) -> Crossing:
    """Where a curve first meets a line, after it has been made monotone in the learning rate."""
    rates, means, hidden = _by_rate(lr, height, censored)
    if len(rates) < 2 and not _one_is_enough(means, hidden, line):
        return CANNOT_TELL
    heights = isotonic_regression(means).x
    past = heights >= line
    certain = rates[~past & ~hidden]
    low = float(certain.max()) if certain.size else 0.0
    if not past.any():
        # A run that ended early below the line may have met it later.
        status = Where.ABOVE if certain.size and low == rates[-1] else Where.CANNOT_TELL
        return Crossing(math.nan, low, math.inf, status)
    first = int(past.argmax())
    if first == 0:
        return Crossing(math.nan, 0.0, float(rates[0]), Where.BELOW)
    share = (line - heights[first - 1]) / (heights[first] - heights[first - 1])
    value = float(rates[first - 1] * (rates[first] / rates[first - 1]) ** share)
    high = value if hidden[first] else float(rates[first])
    return Crossing(value, low, high, Where.CROSSED)


def _by_rate(
    lr: pd.Series, height: pd.Series, censored: pd.Series | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Learning rates in order, the mean height at each, and whether a run there ended early.

    What `groupby` gives, to the bit, for a fiftieth of its time; a report asks hundreds of times.
    """
    points: dict[float, list[float]] = {}
    hidden: dict[float, bool] = {}
    early = np.zeros(len(lr), bool) if censored is None else censored.to_numpy(bool)
    values = zip(lr.to_numpy(float), height.to_numpy(float), early, strict=True)
    for rate, value, hides in values:
        points.setdefault(rate, []).append(value)
        hidden[rate] = hidden.get(rate, False) or bool(hides)
    rates = sorted(points)
    means = np.array([_mean(points[rate]) for rate in rates])
    return np.array(rates), means, np.array([hidden[rate] for rate in rates], bool)


def _mean(values: list[float]) -> float:
    """The mean by Kahan's sum, as pandas adds up a group."""
    total = lost = 0.0
    for value in values:
        part = value - lost
        more = total + part
        lost = more - total - part
        total = more
    return total / len(values)


def _one_is_enough(means: np.ndarray, hidden: np.ndarray, line: float) -> bool:
    """One learning rate still bounds the crossing, unless its run ended early below the line."""
    return len(means) == 1 and bool((means >= line).all() or not hidden.any())
