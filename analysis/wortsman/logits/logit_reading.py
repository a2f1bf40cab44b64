"""The largest attention logit at one part of the runs, and its laws without the largest size."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.intervals import LEVEL
from foretune.analysis.claims.words import plural
from foretune.analysis.laws.critical_law import CriticalLaw, fit_critical_lr
from foretune.analysis.laws.laws import FORMS, Law, fit
from foretune.analysis.measures.crossing import critical_lr
from foretune.analysis.measures.signal import read_signal
from foretune.analysis.wortsman.runs import Runs

PAPERS: Final = "per-lr-quadratic"
SIMPLER: Final = "per-lr-linear"
CROSSING: Final = ["n_params", "seed", "critical_lr", "low", "high", "status"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The signal at one part of the runs, and the laws without the largest size."""

    at_share: float
    cells: pd.DataFrame
    """As `read_signal` gives it, with `rung`."""
    law: Law | None
    why: str
    """Why there is no law."""
    held_out: pd.DataFrame
    """Cells of the largest size, with the forecast `median low high status`."""
    crossings: pd.DataFrame
    """Critical learning rate of each size and seed."""
    all_sizes: CriticalLaw
    without_largest: CriticalLaw


def read(runs: Runs, signal: str, at_share: float, threshold: float) -> Reading:
    """Reads the signal around a share of the steps and fits both laws."""
    window = _window(runs, signal, at_share)
    cells = read_signal(runs.trials, runs.telemetry, signal=signal, window=window)
    cells = cells.assign(
        rung=runs.trials["rung"].to_numpy(), rung_n=runs.trials["rung_n"].to_numpy()
    )
    known = cells[cells["value"] > 0]
    largest = known["rung_n"].max() if len(known) else math.nan
    smaller = known[known["rung_n"] < largest]
    law, why = _fit(smaller)
    held_out = _against(law, known[known["rung_n"] == largest])
    crossings = pd.DataFrame(list(_crossings(known, threshold)), columns=CROSSING)
    return Reading(
        at_share=at_share,
        cells=known,
        law=law,
        why=why,
        held_out=held_out,
        crossings=crossings,
        all_sizes=fit_critical_lr(crossings),
        without_largest=fit_critical_lr(crossings[crossings["n_params"] < largest]),
    )


def _window(runs: Runs, signal: str, at_share: float) -> tuple[float, float]:
    """A fifth of the share to either side, and no less than one reading."""
    if signal not in runs.telemetry or not len(runs.trials):
        return max(0.0, at_share * 0.8), min(1.0, at_share * 1.2)
    steps = runs.telemetry.loc[runs.telemetry[signal].notna(), ["run_id", "step"]]
    between = steps.groupby("run_id")["step"].diff().median()
    total = runs.trials.get("steps", runs.trials["last_step"]).astype(float).median()
    half = max(0.2 * at_share, 0.6 * float(np.nan_to_num(between)) / float(total))
    return max(0.0, at_share - half), min(1.0, at_share + half)


def _fit(cells: pd.DataFrame) -> tuple[Law | None, str]:
    sizes = cells["rung_n"].nunique()
    form = PAPERS if sizes >= FORMS[PAPERS].sizes else SIMPLER
    if sizes < FORMS[SIMPLER].sizes:
        return (
            None,
            f"{plural(sizes, 'size')} below the largest recorded the logits, two are needed",
        )
    return fit(cells.assign(size_id=cells["rung"]), form), ""


def _against(law: Law | None, cells: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for cell in cells.itertuples():
        found = law.predict(cell.n_params, cell.lr, LEVEL) if law else None
        nan = math.nan
        ends = (found.median, found.low, found.high) if found else (nan, nan, nan)
        rows.append((cell.lr, cell.seed, cell.n_params, cell.value, cell.censored, *ends))
    names = ["lr", "seed", "n_params", "value", "censored", "median", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _crossings(cells: pd.DataFrame, threshold: float) -> Iterator[tuple[Any, ...]]:
    for (n, seed), own in cells.groupby(["rung_n", "seed"]):
        found = critical_lr(own, threshold=threshold)
        yield n, seed, found.value, found.low, found.high, found.status


def error_of(held_out: pd.DataFrame) -> pd.DataFrame:
    """Cells whose logit is known and was forecast, with `error` = log10 measured / forecast."""
    known = held_out[~held_out["censored"].astype(bool) & held_out["median"].notna()]
    return known.assign(error=np.log10(known["value"] / known["median"]))


def critical_pair(reading: Reading) -> tuple[float, tuple[float, float, float]]:
    """The largest size's critical learning rate (geometric mean over seeds), and its forecast."""
    nan = (math.nan, math.nan, math.nan)
    if reading.crossings.empty:
        return math.nan, nan
    largest = reading.crossings["n_params"].max()
    own = reading.crossings[reading.crossings["n_params"] == largest]["critical_lr"].dropna()
    measured = float(10 ** np.log10(own).mean()) if len(own) else math.nan
    if math.isnan(reading.without_largest.slope):
        return measured, nan
    found = reading.without_largest.predict(float(largest), LEVEL)
    return measured, (found.median, found.low, found.high)
