"""How good forecasts inside a run are: predictors replayed on recorded runs, scored on splits.

A predictor sees the rows before a step and nothing else. Clusters are configurations of one size
(all seeds of it): what intervals and folds treat as one observation.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Predictor
from foretune.analysis.inside_run.features import LOGIT, Trace, read_features
from foretune.analysis.inside_run.landmark import LANDMARKS, Landmarks, fit_landmarks
from foretune.analysis.records.families import LR, PLAIN, settings
from foretune.analysis.stats.scoring import auroc, expected_calibration_error
from foretune.analysis.stats.uncertainty import bootstrap_interval, on_rows, paired_difference

EARLY: Final = 0.05
"""Share of the steps at which headlines are read."""
FOLDS: Final = 5


def context_of(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a predictor knows of a run, from its row in the trials table."""
    known = {name: value for name, value in trial.items() if "." in name or name in PLAIN}
    return {
        **known,
        "n_params": trial["n_params"],
        "lr": trial[LR],
        "total_steps": trial["steps"],
        "loss_at_init": trial["loss_at_init"],
        "reference_loss": trial["reference_loss"],
    }


def clusters_of(trials: pd.DataFrame) -> pd.Series:
    """Returns a text per run that all seeds of its configuration share, indexed by run_id."""
    fields = [n for n in [*settings(trials), "size", "part"] if n in trials]
    keys = trials[fields].map(str).agg("|".join, axis=1)
    return pd.Series(keys.to_numpy(), index=trials["run_id"].to_numpy(), name="cluster")


def histories(
    trials: pd.DataFrame, telemetry: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Gives each trial as a dict, with its telemetry rows in order of steps."""
    by_run = dict(tuple(telemetry.groupby("run_id", observed=True)))
    for trial in trials.to_dict("records"):
        yield trial, by_run[trial["run_id"]].sort_values("step")


def steps_seen(trial: Mapping[str, Any], share: float, *, after_warmup: bool) -> int:
    """Returns how many steps a prefix holds: a share of all, counted from the warm-up's end or not.

    At least one.
    """
    start = trial.get("schedule.warmup_steps", 0) if after_warmup else 0
    return max(1, round(start + share * trial["steps"]))


def read_landmarks_of(
    trials: pd.DataFrame, telemetry: pd.DataFrame, *, shares: Sequence[float] = LANDMARKS
) -> pd.DataFrame:
    """Returns the features of every run at every landmark: `run_id`, `share`, the features."""
    rows = []
    for trial, history in histories(trials, telemetry):
        context = context_of(trial)
        for share in shares:
            seen = history[history["step"] < steps_seen(trial, share, after_warmup=False)]
            features = read_features(Trace.of(seen), context)
            rows.append({"run_id": trial["run_id"], "share": share, **features})
    return pd.DataFrame(rows)


def with_sweep_loss(trials: pd.DataFrame, telemetry: pd.DataFrame) -> pd.DataFrame:
    """Returns the telemetry with `sweep_loss`: the median loss, at the step, of the sweep's runs.

    A sweep is a part of the bank at one size and length.
    """
    sweep = trials.set_index("run_id")[["part", "size", "steps"]].map(str).agg("|".join, axis=1)
    by_sweep = telemetry.assign(sweep=telemetry["run_id"].astype(str).map(sweep))
    median = by_sweep.groupby(["sweep", "step"])["loss"].transform("median")
    return telemetry.assign(sweep_loss=median)


def replay(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    predictors: Mapping[str, Predictor],
    *,
    share: float = EARLY,
    after_warmup: bool = False,
) -> pd.DataFrame:
    """Returns each predictor's probability for each run, from its first steps alone.

    One row per run, indexed by run_id, a column per predictor; NaN where it can't tell.
    """
    rows = {}
    for trial, history in histories(trials, telemetry):
        seen = history[history["step"] < steps_seen(trial, share, after_warmup=after_warmup)]
        context = context_of(trial)
        rows[trial["run_id"]] = {
            name: predictor(seen, context).probability for name, predictor in predictors.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*predictors])


def fold_of(clusters: pd.Series, *, folds: int = FOLDS, seed: int = 0) -> pd.Series:
    """Returns the fold of every run; a cluster lies in one."""
    names = np.unique(clusters.to_numpy(str))
    order = np.random.default_rng(seed).permutation(len(names))
    number = {name: int(place) % folds for name, place in zip(names, order, strict=True)}
    return clusters.map(number)


def cross_fitted(
    readings: pd.DataFrame, labels: pd.Series, clusters: pd.Series, **options: Any
) -> list[tuple[Landmarks, pd.Index]]:
    """Returns a model per fold, and the runs that it was not fitted on."""
    runs = pd.Index(readings["run_id"].unique())
    fold = fold_of(clusters.loc[runs])
    models = []
    for number in sorted(fold.unique()):
        held_out = runs[(fold == number).to_numpy()]
        rows = readings[~readings["run_id"].isin(held_out)]
        models.append((fit_landmarks(rows, labels, **options), held_out))
    return models


def running_scores(
    model: Landmarks, history: pd.DataFrame, context: Mapping[str, Any]
) -> pd.Series:
    """Returns the probability at every reading of the attention logits, by step; NaN before the
    first landmark. The same numbers as `StopRule` sees live."""
    trace, scores = Trace(), {}
    for row in history.to_dict("records"):
        step = int(row.pop("step"))
        trace.append(step, {k: v for k, v in row.items() if isinstance(v, float)})
        if math.isfinite(row.get(LOGIT, math.nan)):
            scores[step] = model.judge(trace, context).probability
    return pd.Series(scores, dtype=float)


def score_table(
    forecasts: pd.DataFrame,
    labels: pd.Series,
    splits: pd.Series,
    clusters: pd.Series,
    *,
    draws: int = 400,
) -> pd.DataFrame:
    """Returns AUROC with its interval, and calibration error, per predictor and split, tidy.

    All arguments are indexed by run_id. Columns: predictor, split, n, n_unstable, cannot_tell,
    auroc, low, high (90 %, clusters resampled), ece. The split `all held out` holds all but `fit`.
    """
    names = [*dict.fromkeys(splits.loc[forecasts.index])]
    groups = {name: splits.loc[forecasts.index].eq(name) for name in names}
    groups["all held out"] = ~splits.loc[forecasts.index].eq("fit")
    rows = []
    for split, mask in groups.items():
        runs = forecasts.index[mask.to_numpy()]
        if not len(runs):
            continue
        truth = labels.loc[runs].to_numpy(bool)
        for name in forecasts:
            scores = forecasts.loc[runs, name].to_numpy(float)
            interval = bootstrap_interval(
                on_rows(auroc, scores, truth), clusters.loc[runs], draws=draws
            )
            rows.append(
                {
                    "predictor": name,
                    "split": split,
                    "n": len(runs),
                    "n_unstable": int(truth.sum()),
                    "cannot_tell": int(np.isnan(scores).sum()),
                    "auroc": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "ece": expected_calibration_error(scores, truth),
                }
            )
    return pd.DataFrame(rows)


def gain(
    forecasts: pd.DataFrame, labels: pd.Series, clusters: pd.Series, *, ours: str, theirs: str
) -> Any:
    """Returns by how much one predictor's AUROC exceeds another's on the same runs, an Interval."""
    truth = labels.loc[forecasts.index].to_numpy(bool)
    first, second = (
        on_rows(auroc, forecasts[name].to_numpy(float), truth) for name in (ours, theirs)
    )
    return paired_difference(first, second, clusters.loc[forecasts.index])
