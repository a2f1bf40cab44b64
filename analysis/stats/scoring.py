"""How good forecasts are: ranking, calibration, decisions and intervals, on plain arrays.

A forecast of NaN is *cannot tell*. Ranking counts it as a coin flip, so that silence doesn't pay;
calibration leaves it out, since there is nothing to check.
"""

import math
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.stats.uncertainty import (
    Clusters,
    Interval,
    Proportion,
    bootstrap_interval,
    check_labels,
    check_level,
    cluster_codes,
    clustered_proportion,
    on_rows,
    paired_difference,
    proportion,
)

__all__ = [
    "Interval",
    "Proportion",
    "auroc",
    "bootstrap_interval",
    "brier",
    "clustered_proportion",
    "coverage",
    "expected_calibration_error",
    "interval_score",
    "on_rows",
    "paired_difference",
    "precision_recall",
    "proportion",
    "reliability",
]

BINS: Final = 10


def auroc(scores: Any, labels: Any, weights: Any = None) -> float:
    """Returns the probability that a positive run scores above a negative one; NaN without both.

    Ties count half. A score of NaN knows nothing: it counts half against every other run. weights
    (one per run, not negative) weigh a pair by their product.
    """
    label = check_labels(labels)
    score, weight = _like(scores, label, "scores"), np.ones(len(label))
    if weights is not None:
        weight = _like(weights, label, "weights")
    if not (weight >= 0).all():
        raise ValueError(f"weights must be 0 or more, got {np.min(weight):g}; drop those runs.")
    known = ~np.isnan(score)
    pairs = weight[label].sum() * weight[~label].sum()
    if pairs == 0:
        return math.nan
    _, rank = np.unique(score[known], return_inverse=True)
    positive = np.bincount(rank, (weight * label)[known])
    negative = np.bincount(rank, (weight * ~label)[known])
    won = (positive * (np.cumsum(negative) - negative / 2)).sum()
    unknown = pairs - positive.sum() * negative.sum()
    return float((won + unknown / 2) / pairs)


def brier(probabilities: Any, labels: Any) -> float:
    """Returns the mean squared error of the probabilities (Brier 1950), 0 best; NaN of none."""
    p, label = _known(probabilities, labels)
    return float(np.mean((p - label) ** 2)) if len(p) else math.nan


def expected_calibration_error(probabilities: Any, labels: Any, bins: int = BINS) -> float:
    """Returns the mean distance of forecast and share in equal-count bins, 0..1; NaN of none.

    Weighted by the runs in a bin (Naeini et al. 2015). It is never quite 0: n calibrated runs in b
    bins score about sqrt(2 b p (1 - p) / (pi n)), 0.08 for 200 runs at p = 0.3 or 0.7.
    """
    table = reliability(probabilities, labels, bins=bins)
    if not len(table):
        return math.nan
    distance = (table["predicted"] - table["observed"]).abs()
    return float(np.average(distance, weights=table["n"]))


def reliability(
    probabilities: Any, labels: Any, *, bins: int = BINS, level: float = 0.9
) -> pd.DataFrame:
    """Returns the reliability diagram, a row per bin that has runs, by rising probability.

    Columns: `n`, `predicted` (mean probability), `observed` (share of positive runs), `low`, `high`
    (Clopper and Pearson's interval of that share, for independent runs). Bins hold equal counts,
    but equal probabilities stay together, so the order of the runs changes nothing.
    """
    p, label = _known(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}; {BINS} is usual.")
    frame = pd.DataFrame({"p": p, "label": label})
    # Middle ranks in (0, n) are the same for equal probabilities.
    frame["bin"] = ((frame["p"].rank() - 0.5) / max(len(p), 1) * bins).astype(int)
    rows = []
    for _, inside in frame.groupby("bin"):
        share = proportion(int(inside["label"].sum()), len(inside), level=level)
        rows.append((share.n, inside["p"].mean(), share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=["n", "predicted", "observed", "low", "high"])


def precision_recall(
    predicted: Any, labels: Any, *, clusters: Clusters | None = None, level: float = 0.9
) -> tuple[Proportion, Proportion]:
    """Returns precision (share of the predicted that are positive) and recall (of the positive
    that are predicted), each with its interval; by cluster where clusters are given."""
    label = check_labels(labels)
    chosen = check_labels(_like(predicted, label, "predicted"))
    groups = np.arange(len(label)) if clusters is None else cluster_codes(clusters)
    return (
        clustered_proportion(label[chosen], groups[chosen], level=level),
        clustered_proportion(chosen[label], groups[label], level=level),
    )


def interval_score(low: Any, high: Any, truth: Any, level: float) -> np.ndarray:
    """Returns the score of each central interval at level, in the truth's unit, 0 best.

    Width plus 2 / (1 - level) times the distance by which the truth lies outside (Gneiting and
    Raftery 2007, eq. 43); the true quantiles have the lowest mean. NaN where an end is NaN.
    """
    low, high, truth = _intervals(low, high, truth)
    outside = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return high - low + 2 / (1 - check_level(level)) * outside


def coverage(
    low: Any, high: Any, truth: Any, *, clusters: Clusters | None = None, level: float = 0.9
) -> Proportion:
    """Returns the share of intervals that hold the truth, of those that have both ends.

    level is that of the returned share's own interval, not of the intervals that are judged.
    """
    low, high, truth = _intervals(low, high, truth)
    known = ~(np.isnan(low) | np.isnan(high))
    groups = np.arange(len(truth)) if clusters is None else cluster_codes(clusters)
    held = (low <= truth) & (truth <= high)
    return clustered_proportion(held[known], groups[known], level=level)


def _like(values: Any, label: np.ndarray, name: str) -> np.ndarray:
    """values as numbers, one per label."""
    array = np.asarray(values, float)
    if array.shape != label.shape:
        raise ValueError(
            f"{name} must have one value per label, got {array.shape} for {label.shape}."
        )
    return array


def _known(probabilities: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that aren't NaN, and their labels."""
    label = check_labels(labels)
    p = _like(probabilities, label, "probabilities")
    known = ~np.isnan(p)
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(
            f"probabilities must lie in 0..1, got {p[known].min():g} to {p[known].max():g}; "
            f"scores that only rank have an auroc but no calibration."
        )
    return p[known], label[known]


def _intervals(low: Any, high: Any, truth: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high, truth = np.broadcast_arrays(*(np.asarray(x, float) for x in (low, high, truth)))
    if (low > high).any():
        raise ValueError(f"low must not be above high, got {int((low > high).sum())} that are.")
    return low, high, truth
