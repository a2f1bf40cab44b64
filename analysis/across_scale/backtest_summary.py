"""What a backtest across scale comes to: errors and coverage by factor in N, and verdicts."""

from typing import Any, Final

import numpy as np
import pandas as pd

UNSURE: Final = 0.10
"""A cell is called unstable at a probability of 1 - UNSURE or more, stable at UNSURE or less; in
between the answer is `cannot tell`. Chosen on widths 16 to 64, where no call was wrong at 0.05, 0.1
or 0.2."""
NEAR: Final = 1
"""Grid steps from the edge up to which a cell is hard."""
KEYS: Final = ["quantity", "method", "factor"]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Errors of the predicted numbers, by quantity, method and factor in N (to two digits).

    Columns `n`, `median_error` and `worst_error` (of |log10 predicted / measured|, decades), `bias`
    (median, decades), `inside` of `intervals`, `interval_score`, `crps` (means, decades). Rows
    without a prediction or measurement count in `untold`.
    """
    numbers = table[table["probability"].isna() & table["truth"].isna()]
    grouped = numbers.assign(factor=_rounded(numbers["factor"])).groupby(KEYS, sort=False)
    rows = [dict(zip(KEYS, key, strict=True)) | _errors(group) for key, group in grouped]
    return pd.DataFrame(rows).sort_values(KEYS, ignore_index=True) if rows else pd.DataFrame()


def _rounded(factor: pd.Series) -> pd.Series:
    return pd.Series([float(f"{value:.2g}") for value in factor], index=factor.index)


def _errors(group: pd.DataFrame) -> dict[str, Any]:
    error = group["error"].astype(float).dropna()
    inside = group["inside"].dropna().astype(bool)
    return {
        "n": len(error),
        "untold": len(group) - len(error),
        "median_error": error.abs().median(),
        "worst_error": error.abs().max(),
        "bias": error.median(),
        "inside": int(inside.sum()),
        "intervals": len(inside),
        "interval_score": group["interval_score"].astype(float).mean(),
        "crps": group["crps"].astype(float).mean(),
    }


def verdicts(table: pd.DataFrame, *, unsure: float = UNSURE) -> pd.DataFrame:
    """How well cells are called unstable, by method, factor in N and nearness to the edge.

    Nearness is `all`, `edge` (within a grid step of it) or `far`. Columns `n`, `cannot_tell` (the
    share), `precision` and `recall` of unstable among the cells that were called, with the counts
    `hits`, `false_alarms`, `misses`, `all_clear`, and `brier` over the cells with a probability.
    """
    if not 0 <= unsure < 0.5:
        raise ValueError(f"unsure must lie in 0..0.5, got {unsure}; 0.1 is usual")
    cells = table[table["truth"].notna()]
    cells = cells.assign(factor=_rounded(cells["factor"]))
    edge = cells["steps"].astype(float) < NEAR
    rows = []
    for where, own in (("all", cells), ("edge", cells[edge]), ("far", cells[~edge])):
        for key, group in own.groupby(KEYS, sort=False):
            row = dict(zip(KEYS, key, strict=True)) | {"where": where}
            rows.append(row | _counts(group, unsure))
    return pd.DataFrame(rows)


def _counts(group: pd.DataFrame, unsure: float) -> dict[str, Any]:
    p, truth = group["probability"].to_numpy(float), group["truth"].to_numpy(bool)
    alarm, clear = p >= 1 - unsure, p <= unsure
    known = np.isfinite(p)
    hits, false_alarms = int((alarm & truth).sum()), int((alarm & ~truth).sum())
    misses, all_clear = int((clear & truth).sum()), int((clear & ~truth).sum())
    return {
        "n": len(group),
        "cannot_tell": float((~alarm & ~clear).mean()),
        "precision": _share(hits, false_alarms),
        "recall": _share(hits, misses),
        "hits": hits,
        "false_alarms": false_alarms,
        "misses": misses,
        "all_clear": all_clear,
        "brier": float(((p - truth)[known] ** 2).mean()) if known.any() else np.nan,
    }


def _share(hits: int, others: int) -> float:
    return hits / (hits + others) if hits + others else np.nan
