"""How sure a score is: intervals for shares and for any statistic of runs that come in clusters.

Runs of one configuration with other seeds are near copies of each other, so they are counted as a
*cluster*, usually (size, configuration). Clusters are given one per row: labels of any kind, or a
frame whose columns name them together.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

Rows = np.ndarray
"""Indices of the rows that a statistic is taken over; a row may come more than once."""
Statistic = Callable[[Rows], float]
Clusters = Sequence[Hashable] | np.ndarray | pd.Series | pd.DataFrame


@dataclass(frozen=True, slots=True)
class Proportion:
    """k of n, as a share with its interval; the share of nothing is NaN, between 0 and 1."""

    k: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Returns `3 of 60: 0.05 (0.01 to 0.12)`."""
        return f"{self.k} of {self.n}: {self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic of all rows with a percentile interval, NaN where resamples cannot tell."""

    value: float
    low: float
    high: float
    draws: int
    """Resamples in which the statistic existed: an AUROC needs both classes."""


def proportion(k: int, n: int, *, level: float = 0.9) -> Proportion:
    """Returns k of n independent cases with the two-sided interval of Clopper and Pearson (1934).

    `high` alone is a one-sided bound at (1 + level) / 2: 0 of 59 at level 0.9 is below 5 % with
    95 % confidence. ValueError unless 0 <= k <= n and 0 < level < 1.
    """
    if not 0 <= k <= n:
        raise ValueError(f"a proportion needs 0 <= k <= n, got {k} of {n}; count hits in cases.")
    value = k / n if n else math.nan
    return Proportion(int(k), int(n), value, *_clopper_pearson(k, n, check_level(level)))


def clustered_proportion(hits: Any, clusters: Clusters, *, level: float = 0.9) -> Proportion:
    """Returns the share of hits, with an interval for runs that come in clusters.

    Clopper and Pearson's interval at the effective sample size of Korn and Graubard (1998):
    n / deff * (t_(n - 1) / t_(c - 1))^2 over c clusters, t the quantile of Student's t at level.
    The design effect deff = V / (p (1 - p) / (n - 1)) compares the variance between clusters,
    V = c / (c - 1) * sum over clusters of (hits - p * runs)^2 / n^2, with that of single runs;
    one below 1 counts as 1. Where every run is a hit, or none is, or all share one cluster, nothing
    is known of V and each cluster counts as one run. Never narrower than `proportion`.
    """
    hit, code = check_labels(hits), cluster_codes(clusters)
    _check_lengths(hit, code)
    plain = proportion(int(hit.sum()), len(hit), level=level)
    if not plain.n:
        return plain
    effective = _effective_size(hit, code, level)
    low, high = _clopper_pearson(plain.value * effective, effective, level)
    return Proportion(plain.k, plain.n, plain.value, min(low, plain.low), max(high, plain.high))


def bootstrap_interval(
    statistic: Statistic,
    clusters: Clusters,
    *,
    level: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns a statistic of all rows with the percentile interval over resampled clusters.

    statistic takes row indices and returns a number, NaN where it doesn't exist; `on_rows` makes
    one of a metric and its arrays. Clusters are drawn whole, with replacement, and the same seed
    gives the same resamples. With under 2 clusters, or where the statistic exists in under half of
    the resamples, the ends are NaN. At an extreme (an AUROC of 1) the interval has no width: it
    says that resampling finds no error, not that there is none.
    """
    code, tail = cluster_codes(clusters), (1 - check_level(level)) / 2
    value = float(statistic(np.arange(len(code))))
    if len(code) == 0 or code.max() == 0:
        return Interval(value, math.nan, math.nan, 0)
    found = np.array([statistic(rows) for rows in _resamples(code, draws, seed)], float)
    found = found[~np.isnan(found)]
    if 2 * len(found) < draws:
        return Interval(value, math.nan, math.nan, len(found))
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(value, float(low), float(high), len(found))


def paired_difference(
    first: Statistic,
    second: Statistic,
    clusters: Clusters,
    *,
    level: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns first minus second on the same rows, both from the same resamples.

    What makes a resample easy or hard for both cancels, so this can tell two predictors apart
    whose own intervals overlap. Arguments as for `bootstrap_interval`.
    """
    return bootstrap_interval(
        lambda rows: first(rows) - second(rows), clusters, level=level, draws=draws, seed=seed
    )


def on_rows(metric: Callable[..., float], *arrays: Any) -> Statistic:
    """Returns the statistic that gives metric those rows of every array: `on_rows(auroc, s, y)`."""
    held = [np.asarray(array) for array in arrays]
    return lambda rows: metric(*(array[rows] for array in held))


def cluster_codes(clusters: Clusters) -> np.ndarray:
    """Returns the clusters numbered from 0 in the order they appear; ValueError for one missing."""
    given: Any = clusters
    if not isinstance(clusters, pd.DataFrame):
        given = pd.Series(list(clusters), dtype=object).to_frame()
    missing = given.isna().any(axis=1)
    if missing.any():
        raise ValueError(f"every run must have a cluster, got {int(missing.sum())} without one.")
    keys = list(given.itertuples(index=False, name=None))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], int)


def check_labels(labels: Any) -> np.ndarray:
    """Returns labels as booleans; ValueError for what is neither true nor false."""
    values = np.asarray(labels, float)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise ValueError("labels must be a row of true and false (1 and 0); drop unlabelled runs.")
    return values.astype(bool)


def check_level(level: float) -> float:
    """Returns level; ValueError outside 0..1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level:g}; 0.9 is usual.")
    return level


def _check_lengths(hit: np.ndarray, code: np.ndarray) -> None:
    if len(hit) != len(code):
        raise ValueError(f"every run must have one cluster, got {len(code)} for {len(hit)} runs.")


def _clopper_pearson(k: float, n: float, level: float) -> tuple[float, float]:
    """Ends of the interval; k and n need not be whole."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def _effective_size(hit: np.ndarray, code: np.ndarray, level: float) -> float:
    """Independent runs that clustered ones are worth, between 1 and their number."""
    n, c, p = len(hit), int(code.max()) + 1, float(hit.mean())
    if c == 1 or p in (0.0, 1.0):
        return float(c)
    excess = np.bincount(code, hit - p)
    deff = c / (c - 1) * float((excess**2).sum()) / n**2 / (p * (1 - p) / (n - 1))
    t_n, t_c = special.stdtrit(np.array([n - 1, c - 1]), (1 + level) / 2)
    return float(np.clip(n / max(deff, 1.0) * (t_n / t_c) ** 2, 1, n))


def _resamples(code: np.ndarray, draws: int, seed: int) -> Iterator[Rows]:
    """Rows of each resample, clusters drawn whole."""
    rng = np.random.default_rng(seed)
    order, counts = np.argsort(code, kind="stable"), np.bincount(code)
    starts = np.cumsum(counts) - counts
    for _ in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        sizes = counts[chosen]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield order[np.repeat(starts[chosen], sizes) + within]
