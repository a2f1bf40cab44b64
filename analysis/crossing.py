"""Where a curve over learning rates meets a line: the critical learning rate, and what it rests on.

Three curves are read: a signal against its danger line; the loss above the best of its family; and
the loss above a twin that has the cure. The first says that a run is unstable, the others what that
costs.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

READ_WINDOW: Final = (0.75, 1.0)
"""Share of a run's steps over which a signal is read. The last quarter lies past warm-up, and past
the peak of the logits that a decaying learning rate leaves behind."""
PENALTY: Final = 0.1
"""Loss, nats, at which a run counts as suffering."""
FLOOR: Final = 1e-6
"""A signal at or below this share of its line counts as this share: logits can be zero at init."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """The learning rate at which a curve meets a line, and the grid points that enclose it.

    `status` is `crossed`, `below the grid` (past the line at every learning rate), `above the grid`
    (at none) or `cannot tell`. Where it isn't crossed `value` is NaN, and `low` and `high` hold
    what the grid still says: the crossing is below its lowest or above its highest rate.
    """

    value: float
    low: float
    high: float
    status: str


CANNOT_TELL: Final = Crossing(math.nan, math.nan, math.nan, "cannot tell")


def critical_lr(cells: pd.DataFrame, *, threshold: float) -> Crossing:
    """Learning rate at which a signal meets a threshold, log-log between the enclosing rates.

    `cells` has columns `lr`, `value` (positive, as `read_signal` gives it) and optionally
    `censored`: a run that ended before the reading, whose signal would have grown to at least
    `value`. Values at one learning rate are averaged as logs; the curve is made monotone by
    isotonic regression, so there is one crossing.
    """
    if not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold must be positive and finite, got {threshold}; 100 is usual")
    points = _clean(cells, ("lr", "value"))
    height = np.log10(np.maximum(points["value"] / threshold, FLOOR))
    censored = points["censored"] if "censored" in points else np.zeros(len(points), bool)
    return _cross(points["lr"], height, 0.0, pd.Series(censored, index=points.index))


def excess_lr(cells: pd.DataFrame, *, penalty: float = PENALTY) -> Crossing:
    """Learning rate above the optimum at which the loss exceeds the curve's best by a penalty.

    `cells` has columns `lr` and `loss` (nats, capped at the loss at init). Needs no twin, but an
    optimum that lies between two grid points makes the excess look smaller than it is.
    """
    points = _clean(cells, ("lr", "loss")).groupby("lr", as_index=False)["loss"].mean()
    if len(points) < 2:
        return CANNOT_TELL
    best = points.loc[points["loss"].idxmin()]
    above = points[points["lr"] >= best["lr"]]
    if len(above) < 2:
        return Crossing(math.nan, float(best["lr"]), math.inf, "above the grid")
    return _cross(above["lr"], above["loss"] - best["loss"], penalty)


def penalty_lr(cells: pd.DataFrame, twin: pd.DataFrame, *, penalty: float = PENALTY) -> Crossing:
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


def _clean(cells: pd.DataFrame, columns: tuple[str, str]) -> pd.DataFrame:
    missing = set(columns) - set(cells.columns)
    if missing:
        raise ValueError(
            f"cells must have columns {' and '.join(columns)}, got {list(cells.columns)}; add "
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
    hidden = pd.Series(False, index=lr.index) if censored is None else censored
    raw = pd.DataFrame({"lr": lr, "height": height, "hidden": hidden})
    curve = raw.groupby("lr").agg({"height": "mean", "hidden": "any"})
    if len(curve) < 2 and not _one_is_enough(curve, line):
        return CANNOT_TELL
    rates = curve.index.to_numpy(float)
    heights = isotonic_regression(curve["height"].to_numpy(float)).x
    past = heights >= line
    certain = rates[~past & ~curve["hidden"].to_numpy(bool)]
    low = float(certain.max()) if certain.size else 0.0
    if not past.any():
        # A run that ended early below the line may have met it later.
        status = "above the grid" if certain.size and low == rates[-1] else "cannot tell"
        return Crossing(math.nan, low, math.inf, status)
    first = int(past.argmax())
    if first == 0:
        return Crossing(math.nan, 0.0, float(rates[0]), "below the grid")
    share = (line - heights[first - 1]) / (heights[first] - heights[first - 1])
    value = float(rates[first - 1] * (rates[first] / rates[first - 1]) ** share)
    high = value if curve["hidden"].to_numpy(bool)[first] else float(rates[first])
    return Crossing(value, low, high, "crossed")


def _one_is_enough(curve: pd.DataFrame, line: float) -> bool:
    """One learning rate still bounds the crossing, unless its run ended early below the line."""
    return len(curve) == 1 and bool((curve["height"] >= line).all() or not curve["hidden"].any())
