"""Steps saved against healthy runs lost, for every threshold that a predictor could stop at.

A predictor looks at every run at the same few shares of its steps; the run is stopped at the first
look whose score passes the threshold.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.evaluation.backtest import replay
from foretune.analysis.inside_run.contract import Predictor

LOOKS: Final = (0.03, 0.05, 0.10, 0.20, 0.30, 0.45, 0.60, 0.80)
"""Shares of all steps at which runs are looked at."""
THRESHOLDS: Final = 200
"""Most points of a curve."""


def looks_at(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    predictors: Mapping[str, Predictor],
    *,
    looks: Sequence[float] = LOOKS,
) -> pd.DataFrame:
    """Returns every score: rows (run_id, look), a column per predictor."""
    parts = {look: replay(trials, telemetry, predictors, share=look) for look in looks}
    return (
        pd.concat(parts, names=["look", "run_id"]).reorder_levels(["run_id", "look"]).sort_index()
    )


def stop_curve(scores: pd.Series, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the curve of one predictor, by falling threshold.

    scores is indexed by (run_id, look), NaN where it can't tell; runs has `unstable`, `healthy` and
    `total_steps`, indexed by run_id. Columns: `threshold`, `false_stops` (share of healthy runs
    that are stopped), `saved` (share of the steps of unstable runs that is saved).
    """
    table_RL = scores.unstack("look").sort_index(axis=1)
    looks_L = table_RL.columns.to_numpy(float)
    runs = runs.loc[table_RL.index]
    highest_RL = np.maximum.accumulate(table_RL.fillna(-np.inf).to_numpy(float), axis=1)
    healthy, unstable = (runs[name].to_numpy(bool) for name in ("healthy", "unstable"))
    steps = runs["total_steps"].to_numpy(float) * unstable
    rows = []
    for threshold in _thresholds(highest_RL):
        past_RL = highest_RL >= threshold
        stopped = past_RL[:, -1]
        left = np.where(stopped, 1 - looks_L[past_RL.argmax(axis=1)], 0.0)
        saved = float((left * steps).sum() / steps.sum()) if steps.any() else np.nan
        false = float(stopped[healthy].mean()) if healthy.any() else np.nan
        rows.append({"threshold": threshold, "false_stops": false, "saved": saved})
    return pd.DataFrame(rows, columns=["threshold", "false_stops", "saved"])


def saved_at(curve: pd.DataFrame, false_stops: float) -> float:
    """Returns the most that is saved at no more than a rate of false stops; 0 where nothing is."""
    allowed = curve[curve["false_stops"] <= false_stops]
    return float(allowed["saved"].max()) if len(allowed) else 0.0


def _thresholds(highest_RL: np.ndarray) -> np.ndarray:
    """Falling thresholds at scores that occur, thinned to `THRESHOLDS`."""
    values = np.unique(highest_RL[np.isfinite(highest_RL)])[::-1]
    if len(values) <= THRESHOLDS:
        return values
    return values[np.linspace(0, len(values) - 1, THRESHOLDS).round().astype(int)]
