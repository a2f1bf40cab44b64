"""How well small sizes forecast larger ones: all sets of smaller sizes fitted, the rest predicted.

Rolling origin: laws see the sizes up to one of them and predict each later one. Rows are of three
kinds: a critical learning rate, the signal of one run at a fixed learning rate, and whether a cell
is unstable. `analysis.across_scale.backtest_summary` counts them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.across_scale.cells import cell_labels, origins, scored_cells
from foretune.analysis.across_scale.forecasters import (
    BEFORE,
    EXCESSES,
    Forecaster,
    critical_forecasters,
)
from foretune.analysis.laws.laws import FORMS, Estimate, Law, fit
from foretune.analysis.measures.crossing import READ_WINDOW, critical_lr, excess_crossing
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.stats.scoring import interval_score
from foretune.analysis.stats.status import Status

ONLY_LR: Final = "learning rate only"
"""The baseline that knows no size."""
COLUMNS: Final = MappingProxyType(
    {
        "quantity": "str",
        "method": "str",
        "n_sizes": "int64",
        "origin": "float64",
        "n_params": "float64",
        "factor": "float64",
        "lr": "float64",
        "seed": "float64",
        "n_seeds": "int64",
        "median": "float64",
        "low": "float64",
        "high": "float64",
        "measured": "float64",
        "error": "float64",
        "inside": "object",
        "interval_score": "float64",
        "crps": "float64",
        "probability": "float64",
        "truth": "object",
        "steps": "float64",
        "status": "str",
    }
)
"""Columns of the table. `origin` is the largest of `n_sizes` fitted sizes; `error` is log10
predicted / measured; `inside`, `interval_score` and `crps` are in decades and empty without an
interval; `truth` and `steps` as `cell_labels` has them."""


def scale_backtest(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    signal: str = SIGNAL,
    threshold: float = ATTENTION_LOGIT.value,
    window: tuple[float, float] = READ_WINDOW,
    forms: Sequence[str] = tuple(FORMS),
    level: float = 0.9,
    targets: Sequence[float] | None = None,
) -> pd.DataFrame:
    """The table of all predictions of one family, with the columns of `COLUMNS`.

    trials and telemetry as `analysis.load` gives them, of one family, at three sizes or more.
    `targets` keeps the sizes (by `size`) that are scored; default all.
    """
    cells = scored_cells(trials, telemetry, signal=signal, window=window)
    rows: list[dict[str, Any]] = []
    for fitted, ahead in origins(cells):
        sizes = ahead[ahead["size"].isin(targets)] if targets is not None else ahead
        laws = {form: law for form in forms if (law := _fit(fitted, form)) is not None}
        critical = critical_forecasters(fitted, laws, threshold)
        for n_params, target in sizes.groupby("n_params"):
            where = {"n_sizes": fitted["n_params"].nunique(), "origin": fitted["n_params"].max()}
            where |= {"n_params": n_params, "factor": n_params / where["origin"]}
            found = [
                *_critical_rows(critical, target, threshold, level),
                *_signal_rows(laws, fitted, target, level),
                *_decision_rows(critical, fitted, target),
            ]
            rows += [where | row for row in found]
    return pd.DataFrame(rows, columns=[*COLUMNS]).astype(
        {name: kind for name, kind in COLUMNS.items() if kind == "str"}
    )


def _fit(cells: pd.DataFrame, form: str) -> Law | None:
    try:
        return fit(cells, form)
    except ValueError:
        return None  # Too few sizes for this form; its rows are missing, not wrong.


def _critical_rows(
    critical: Mapping[tuple[str, str], Forecaster],
    target: pd.DataFrame,
    threshold: float,
    level: float,
) -> Iterator[dict[str, Any]]:
    n_params, seeds = float(target["n_params"].iloc[0]), target["seed"].nunique()
    measured = {"signal": critical_lr(target, threshold=threshold, smooth=True).value}
    measured |= {name: excess_crossing(target, line).value for name, line in EXCESSES.items()}
    for (quantity, method), law in critical.items():
        estimate = law.predict(n_params, level)
        row = {"quantity": f"critical LR, {quantity}", "method": method, "n_seeds": seeds}
        yield row | _scored(estimate, measured[quantity], level)


def _scored(estimate: Estimate, measured: float, level: float) -> dict[str, Any]:
    """An estimate beside what was measured, both positive."""
    row = {
        "median": estimate.median,
        "low": estimate.low,
        "high": estimate.high,
        "measured": measured,
        "status": estimate.status,
    }
    if not (math.isfinite(estimate.median) and math.isfinite(measured)):
        return row
    value = math.log10(measured)
    row["error"] = math.log10(estimate.median) - value
    if 0 < estimate.low <= estimate.high < math.inf:
        low, high = math.log10(estimate.low), math.log10(estimate.high)
        row["inside"] = low <= value <= high
        row["interval_score"] = float(interval_score(low, high, value, level))
    return row


def _signal_rows(
    laws: Mapping[str, Law], fitted: pd.DataFrame, target: pd.DataFrame, level: float
) -> Iterator[dict[str, Any]]:
    """One row per form and run; runs that ended early only bound their signal and are left out."""
    known = target[~target["censored"] & (target["value"] > 0)]
    logs = np.log10(fitted["value"])
    largest = fitted["n_params"] == fitted["n_params"].max()
    for _, run in known.iterrows():
        n_params, lr, value = (float(run[name]) for name in ("n_params", "lr", "value"))
        row = {"quantity": "signal at a learning rate", "lr": lr, "seed": run["seed"], "n_seeds": 1}
        for form, law in laws.items():
            scored = (
                row | {"method": form} | _scored(law.predict(n_params, lr, level), value, level)
            )
            if "error" in scored:
                scored["crps"] = law.believe(n_params, lr).crps(math.log10(value))
            yield scored
        same = np.isclose(fitted["lr"], lr)
        for method, chosen in ((BEFORE, same & largest), (ONLY_LR, same)):
            guess = 10 ** float(logs[chosen].mean()) if chosen.any() else math.nan
            estimate = Estimate(guess, math.nan, math.nan, Status.ok("a baseline"))
            yield row | {"method": method} | _scored(estimate, value, level)


def _decision_rows(
    critical: Mapping[tuple[str, str], Forecaster], fitted: pd.DataFrame, target: pd.DataFrame
) -> Iterator[dict[str, Any]]:
    for name, excess in EXCESSES.items():
        before = cell_labels(fitted, excess)
        largest = before[before["n_params"] == before["n_params"].max()]
        laws = {m: law for (q, m), law in critical.items() if q == name and m != BEFORE}
        for _, cell in cell_labels(target, excess).iterrows():
            n_params, lr = float(cell["n_params"]), float(cell["lr"])
            row = {"quantity": f"unstable, {name}", "lr": lr, "measured": cell["excess"]}
            row |= {name: cell[name] for name in ("truth", "steps", "n_seeds")}
            row["status"] = Status.ok()
            for method, law in laws.items():
                probability = law.probability_unstable(n_params, lr)
                yield row | {"method": method, "probability": probability}
            for method, seen in ((BEFORE, largest), (ONLY_LR, before)):
                share = seen.loc[np.isclose(seen["lr"], lr), "truth"].mean()
                yield row | {"method": method, "probability": float(share)}
