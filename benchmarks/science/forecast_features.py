"""The part of `benchmarks/science/forecast.py` about a feature that the model might have, and
hasn't."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.record import Record
from benchmarks.science.forecast_inside import COLLAPSE, Scored
from foretune.analysis.evaluation.backtest import (
    FOLDS,
    fold_of,
    histories,
    read_landmarks_of,
    steps_seen,
)
from foretune.analysis.inside_run.collapse import Collapse
from foretune.analysis.inside_run.landmark import CHOSEN, fit_landmarks
from foretune.analysis.stats.scoring import auroc

SHARES = (0.05, 0.10, 0.25)
"""Shares of the steps at which a feature is asked for."""
SHUFFLES = 5
"""Ways to deal the configurations to the folds."""
SETS = {
    "the model": CHOSEN,
    f"with the {COLLAPSE}": (*CHOSEN, COLLAPSE),
    "that alone": (COLLAPSE,),
}


def collapse_as_feature(record: Record, found: Scored) -> None:
    """Prints what the collapse residual adds to the model, cross-validated on the fit split alone.

    The common curve is that of the healthy runs of the fold's own fit.
    """
    record.say(
        f"\nIs the {COLLAPSE} a feature? fit split, {SHUFFLES} times {FOLDS} folds of "
        f"configurations: mean and range"
    )
    rows = pd.DataFrame(list(_scores(found)))
    for share, at in rows.groupby("share"):
        for name in SETS:
            own = at[at["features"] == name]
            record.say(
                f"  {share:4.0%} of the steps, {name:28} AUROC {_range(own['auroc'])}, "
                f"log loss {_range(own['log_loss'])}"
            )


def _range(values: pd.Series) -> str:
    return f"{values.mean():.4f} ({values.min():.4f}-{values.max():.4f})"


def _scores(found: Scored) -> Iterator[dict[str, object]]:
    """A row per shuffle, share and set of features."""
    trials = found.trials[found.trials["run_id"].isin(found.of("fit"))]
    readings = read_landmarks_of(trials, found.telemetry, shares=SHARES)
    for seed in range(SHUFFLES):
        fold = fold_of(found.clusters.loc[trials["run_id"]], seed=seed)
        probabilities = pd.concat(
            _held_out(found, trials, readings, fold.index[(fold == number).to_numpy()])
            for number in sorted(fold.unique())
        )
        for share, at in probabilities.groupby("share"):
            unstable = found.labels.loc[at["run_id"], "unstable"].to_numpy(bool)
            for name in SETS:
                p = at[name].to_numpy(float)
                likelihood = np.where(unstable, p, 1 - p)
                yield {
                    "share": share,
                    "features": name,
                    "auroc": auroc(p, unstable),
                    "log_loss": -np.log(likelihood).mean(),
                }


def _held_out(
    found: Scored, trials: pd.DataFrame, readings: pd.DataFrame, held_out: pd.Index
) -> pd.DataFrame:
    """The probabilities of the runs held out, by every set of features fitted on the others."""
    others = trials[~trials["run_id"].isin(held_out)]
    healthy = found.labels.loc[others["run_id"], "healthy"].to_numpy(bool)
    residual = _residuals(found, trials, Collapse.fit(others[healthy], found.telemetry))
    rows = readings.assign(**{COLLAPSE: residual.loc[list(_keys(readings))].to_numpy()})
    mine = rows["run_id"].isin(held_out)
    return rows.loc[mine, ["run_id", "share"]].assign(
        **{
            name: _probabilities(rows[~mine], rows[mine], found, features)
            for name, features in SETS.items()
        }
    )


def _keys(readings: pd.DataFrame) -> Iterator[tuple[str, float]]:
    return zip(readings["run_id"], readings["share"], strict=True)


def _residuals(found: Scored, trials: pd.DataFrame, collapse: Collapse) -> pd.Series:
    """The collapse residual by (run_id, share)."""
    return pd.Series(
        {
            (trial["run_id"], share): collapse.residual(
                history[history["step"] < steps_seen(trial, share, after_warmup=False)],
                trial["steps"],
            )
            for trial, history in histories(trials, found.telemetry)
            for share in SHARES
        }
    )


def _probabilities(
    fitted: pd.DataFrame, held_out: pd.DataFrame, found: Scored, features: Sequence[str]
) -> pd.Series:
    model = fit_landmarks(fitted, found.labels["unstable"], features=features)
    parts = []
    for share, fill, fit in zip(model.shares, model.fill, model.fits, strict=True):
        rows = held_out[held_out["share"] == share]
        columns = rows[list(features)].to_numpy(float)
        probability = fit.probability(np.where(np.isfinite(columns), columns, fill))
        parts.append(pd.Series(probability, index=rows.index))
    return pd.concat(parts).loc[held_out.index]
