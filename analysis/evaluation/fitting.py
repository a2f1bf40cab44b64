"""Fits the forecast inside a run on a bank: model, stop thresholds, and what they hold for."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from foretune.analysis.evaluation.backtest import (
    clusters_of,
    context_of,
    cross_fitted,
    histories,
    read_landmarks_of,
)
from foretune.analysis.evaluation.backtest import running_scores as scores_of_run
from foretune.analysis.evaluation.cures import Cure, fit_cure
from foretune.analysis.evaluation.splits import FIT_SWITCHES, split_runs
from foretune.analysis.inside_run.landmark import Landmarks, fit_landmarks
from foretune.analysis.measures.labels import label_runs
from foretune.analysis.measures.twins import FIXES, twins_of
from foretune.analysis.stats.conformal import run_maximum, stop_threshold

RATES: Final = (0.01, 0.05, 0.10)
"""Rates of false stops that thresholds are made for, where healthy runs suffice."""
LEAST: Final = 0.5
"""Least threshold: no run is stopped that is more likely to end well, however clean the bank."""
HORIZON: Final = ("n_params", "steps", *FIT_SWITCHES)
"""Fields whose fitted range belongs to the horizon."""


def fit_forecast(
    trials: pd.DataFrame, telemetry: pd.DataFrame, *, facts: Mapping[str, Any] | None = None
) -> Landmarks:
    """Returns the model fitted on the `fit` split of a bank, with stop thresholds.

    A threshold is conformal on the largest score of each healthy configuration (all its seeds), by
    a model that was not fitted on it, and at least `LEAST`.
    """
    labels = label_runs(trials, telemetry)
    chosen = trials[trials["run_id"].isin(labels.index) & split_runs(trials).eq("fit")]
    readings = read_landmarks_of(chosen, telemetry)
    clusters = clusters_of(chosen)
    maxima = _healthy_maxima(chosen, telemetry, readings, labels, clusters)
    thresholds = {rate: stop_threshold(maxima.to_numpy(), alpha=rate) for rate in RATES}
    about = {
        "runs": len(chosen),
        "unstable": int(labels.loc[chosen["run_id"], "unstable"].sum()),
        "healthy_configurations": len(maxima),
        "thresholds": {
            f"{rate:g}": max(found.value, LEAST)
            for rate, found in thresholds.items()
            if found.status.is_ok
        },
        "horizon": {
            name: [float(chosen[name].min()), float(chosen[name].max())] for name in HORIZON
        },
        **(facts or {}),
    }
    return fit_landmarks(readings, labels["unstable"], about=about)


def fit_cures(trials: pd.DataFrame, telemetry: pd.DataFrame) -> list[Cure]:
    """Returns the rule of every fix, fitted on the twins of the `fit` split."""
    chosen = trials[split_runs(trials).eq("fit") & trials["outcome"].eq("finished")]
    clusters = clusters_of(chosen)
    return [fit_cure(twins_of(chosen, fix), telemetry, clusters, fix=fix) for fix in FIXES]


def _healthy_maxima(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    readings: pd.DataFrame,
    labels: pd.DataFrame,
    clusters: pd.Series,
) -> pd.Series:
    """The largest score that any seed of a healthy configuration reached, by cluster."""
    found: dict[str, float] = {}
    for model, held_out in cross_fitted(readings, labels["unstable"], clusters):
        healthy = held_out[labels.loc[held_out, "healthy"].to_numpy(bool)]
        for trial, history in histories(trials[trials["run_id"].isin(healthy)], telemetry):
            scores = scores_of_run(model, history, context_of(trial)).dropna()
            found[trial["run_id"]] = run_maximum(scores.to_numpy())
    largest = pd.Series(found, dtype=float)
    return largest.groupby(clusters.loc[largest.index]).max()
