"""Number formats compared: each at its own best learning rate, the same seeds side by side.

Four comparisons, since "as good as full precision" means nothing without saying at equal what:
equal width, a multiple of the width, equal parameters (the same thing as equal width, up to gains),
and equal bytes of stored weights, where full precision is interpolated between its own sizes.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import special

from foretune.analysis.records.families import LR, QUANTIZER, quantizer_name
from foretune.analysis.records.schema import UNFINISHED
from foretune.analysis.stats.verdict import Verdict

PLAIN: Final = "full precision"
CONTROL: Final = "full precision + norms"
LEVEL: Final = 0.9


def quantizer_names(trials: pd.DataFrame) -> pd.Series:
    """What each trial's weights are held in; see `analysis.records.families.quantizer_name`."""
    defaults = dict(zip(QUANTIZER, ("none", "", False), strict=True))
    columns = [
        trials.get(name, pd.Series(default, index=trials.index))
        for name, default in defaults.items()
    ]
    names = [quantizer_name(str(f), s, bool(n)) for f, s, n in zip(*columns, strict=True)]
    return pd.Series(names, index=trials.index, name="quantizer")


def quantizer_cells(trials: pd.DataFrame, *, metric: str = "loss") -> pd.DataFrame:
    """One row per quantizer, size and seed: the value at the learning rate that is best over seeds.

    metric is `loss` (final validation loss, nats) or `error` (share of validation images that are
    classified wrongly). Columns: quantizer, size, n_params, weight_bytes, seed, lr, value, edge
    (whether the best rate is the grid's lowest or highest, so that a better one may lie outside).
    A diverged run counts as its loss at init, or as an error of 1.
    """
    if metric not in ("loss", "error"):
        raise ValueError(f"metric must be loss or error, got {metric!r}")
    ended = trials[~trials["outcome"].isin([UNFINISHED, "failed"])].copy()
    ended["quantizer"] = quantizer_names(ended)
    ended["value"] = _values(ended, metric)
    rows = []
    for (quantizer, size), group in ended.groupby(["quantizer", "size"], sort=True):
        means = group.groupby(LR)["value"].mean()
        if means.isna().all():
            continue
        best = means.idxmin()
        at_best = group[group[LR] == best].groupby("seed", as_index=False).mean(numeric_only=True)
        for _, row in at_best.iterrows():
            rows.append(
                {
                    "quantizer": quantizer,
                    "size": size,
                    "n_params": row["n_params"],
                    "weight_bytes": row.get("weight_bytes", math.nan),
                    "seed": int(row["seed"]),
                    "lr": best,
                    "value": row["value"],
                    "edge": len(means) > 1 and best in (means.index[0], means.index[-1]),
                }
            )
    columns = ["quantizer", "size", "n_params", "weight_bytes", "seed", "lr", "value", "edge"]
    return pd.DataFrame(rows, columns=columns)


def _values(trials: pd.DataFrame, metric: str) -> pd.Series:
    if metric == "loss":
        return trials["objective"]
    accuracy = trials.get("final_val_accuracy", pd.Series(math.nan, index=trials.index))
    return (1 - accuracy).where(~trials["diverged"], 1.0)


def quantizer_table(cells: pd.DataFrame, *, level: float = LEVEL) -> pd.DataFrame:
    """Mean and interval over seeds of every quantizer and size, best first inside a size."""
    rows = []
    for (quantizer, size), group in cells.groupby(["quantizer", "size"], sort=True):
        mean, half = _interval(group["value"].to_numpy(float), level)
        first = group.iloc[0]
        rows.append(
            {
                "size": size,
                "quantizer": quantizer,
                "n_params": first["n_params"],
                "weight_bytes": first["weight_bytes"],
                "best_lr": first["lr"],
                "value": mean,
                "low": mean - half,
                "high": mean + half,
                "n_seeds": len(group),
                "edge": bool(first["edge"]),
            }
        )
    columns = [
        "size",
        "quantizer",
        "n_params",
        "weight_bytes",
        "best_lr",
        "value",
        "low",
        "high",
        "n_seeds",
        "edge",
    ]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values(["size", "value"], ignore_index=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference between two quantizers over seeds, with its interval; lower is better."""

    sentence: str
    difference: float
    """Mean over seeds of left minus right."""
    low: float
    high: float
    n_seeds: int
    better: Verdict
    """Whether the left one is; that cannot be decided where the interval holds zero, or there are
    fewer than two seeds."""


def compare(
    cells: pd.DataFrame,
    left: tuple[str, float],
    right: tuple[str, float],
    *,
    unit: str = "nats",
    level: float = LEVEL,
) -> Comparison:
    """Compares (quantizer, size) with another one, seed by seed, each at its best learning rate."""
    a, b = _by_seed(cells, *left), _by_seed(cells, *right)
    what = f"{left[0]} at size {left[1]:g} against {right[0]} at size {right[1]:g}"
    return _comparison((a - b).dropna(), what, unit, level)


def compare_at_equal_bytes(
    cells: pd.DataFrame,
    left: tuple[str, float],
    right: str,
    *,
    unit: str = "nats",
    level: float = LEVEL,
) -> Comparison:
    """Compares a quantizer with another one of as many stored bytes.

    The other one's value is interpolated over the logarithm of the bytes between its own sizes,
    never beyond them.
    """
    own = cells[(cells["quantizer"] == left[0]) & (cells["size"] == left[1])]
    differences: dict[int, float] = {}
    stored = float(own["weight_bytes"].iloc[0]) if len(own) else math.nan
    for seed, value in _by_seed(cells, *left).items():
        rows = cells[(cells["quantizer"] == right) & (cells["seed"] == seed)]
        curve = rows.dropna(subset=["weight_bytes"]).sort_values("weight_bytes")
        x = np.log(curve["weight_bytes"].to_numpy(float))
        if len(x) >= 2 and x[0] <= np.log(stored) <= x[-1]:
            other = np.interp(np.log(stored), x, curve["value"].to_numpy(float))
            differences[int(str(seed))] = value - float(other)
    what = f"{left[0]} at size {left[1]:g} against {right} of as many bytes ({stored:,.0f})"
    return _comparison(pd.Series(differences, dtype=float), what, unit, level)


def _by_seed(cells: pd.DataFrame, quantizer: str, size: float) -> pd.Series:
    rows = cells[(cells["quantizer"] == quantizer) & (cells["size"] == size)]
    return rows.set_index("seed")["value"]


def _comparison(differences: pd.Series, what: str, unit: str, level: float) -> Comparison:
    values = differences.to_numpy(float)
    if len(values) < 2:
        nan = math.nan
        why = "fewer than two seeds have both" if "bytes" not in what else "its bytes lie outside"
        unclear = Verdict.CANNOT_TELL
        return Comparison(f"{what}: {unclear}, {why}.", nan, nan, nan, len(values), unclear)
    mean, half = _interval(values, level)
    better = Verdict.of(mean + half < 0, mean - half > 0)
    word = better.choose("better", "worse", "no clear difference")
    sentence = (
        f"{what}: {word}, {mean:+.3f} {unit} "
        f"({level:.0%} interval {mean - half:+.3f} to {mean + half:+.3f}, {len(values)} seeds)."
    )
    return Comparison(sentence, mean, mean - half, mean + half, len(values), better)


def _interval(values: np.ndarray[Any, Any], level: float) -> tuple[float, float]:
    """Mean and half-width of Student's t interval; infinite for one value."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.inf
    quantile = float(special.stdtrit(len(values) - 1, (1 + level) / 2))
    return mean, quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
