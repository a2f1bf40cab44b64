"""The part of `benchmarks/science/forecast.py` about single runs: ranking, calibration, stopping,
cures."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.record import Record
from benchmarks.science.peers import PEERS
from benchmarks.science.rksp import scores_of
from foretune.analysis.evaluation.backtest import (
    EARLY,
    clusters_of,
    context_of,
    gain,
    replay,
    score_table,
    with_sweep_loss,
)
from foretune.analysis.evaluation.splits import SPLITS, split_runs
from foretune.analysis.inside_run.baselines import BASELINES
from foretune.analysis.inside_run.collapse import Collapse
from foretune.analysis.inside_run.configuration import Configuration
from foretune.analysis.inside_run.contract import Predictor
from foretune.analysis.inside_run.landmark import Landmarks, read_landmarks
from foretune.analysis.measures.excess import UNSTABLE
from foretune.analysis.measures.labels import LEVELS, label_runs
from foretune.analysis.records.bank import Bank
from foretune.analysis.stats.scoring import auroc, expected_calibration_error
from foretune.analysis.stats.uncertainty import clustered_proportion

OURS, CONFIGURATION, COLLAPSE = "foretune", "configuration", "collapse residual"
RKSP = "RKSP at initialisation"
SIZES = ("size 2x", "size 4x", "size 16x")
UNSEEN = ("intervention", "text", "architecture", "random")
SIZES_AUROC, UNSEEN_AUROC, MAX_ECE = 0.98, 0.95, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A bank with what its runs came to."""

    trials: pd.DataFrame
    """Runs whose label is known."""
    everything: pd.DataFrame
    """All runs of the bank."""
    telemetry: pd.DataFrame
    labels: pd.DataFrame
    """Of `label_runs`, indexed by run_id."""
    splits: pd.Series
    """Indexed by run_id."""
    clusters: pd.Series
    model: Landmarks
    drawn: set[str]
    """The configurations of the random searches as they were drawn, without their twins."""

    def of(self, *splits: str) -> pd.Index:
        """The runs of some splits."""
        return self.splits.index[self.splits.isin(splits)]


def scored(bank: Bank) -> Scored:
    """Returns the bank with labels and splits; runs without a label are left out."""
    labels = label_runs(bank.trials, bank.telemetry)
    labels = labels[labels["known"]]
    trials = bank.trials[bank.trials["run_id"].isin(labels.index)].reset_index(drop=True)
    splits = pd.Series(split_runs(trials).to_numpy(), index=trials["run_id"].to_numpy())
    return Scored(
        trials=trials,
        everything=bank.trials,
        telemetry=with_sweep_loss(trials, bank.telemetry),
        labels=labels,
        splits=splits,
        clusters=clusters_of(trials),
        model=read_landmarks(),
        drawn=_drawn(bank.trials[bank.trials["part"].str.startswith("random")]),
    )


def _drawn(trials: pd.DataFrame) -> set[str]:
    """The run of each trio that the search drew: at its rate, with the third's qk-layernorm."""
    drawn: set[str] = set()
    for _, trio in trials.groupby(["part", "seed"]):
        rate, norm = trio["optimizer.lr"], trio["model.qk_norm"].astype(bool)
        third = norm[rate < rate.max()]
        drawn |= set(trio.loc[rate.eq(rate.max()) & norm.eq(bool(third.iloc[0])), "run_id"])
    return drawn


def configuration_of(found: Scored) -> Configuration:
    """Returns the baseline that sees no training, fitted on the runs that ours was fitted on."""
    fitted = found.trials[found.trials["run_id"].isin(found.of("fit"))]
    contexts = pd.DataFrame([context_of(trial) for trial in fitted.to_dict("records")])
    unstable = found.labels.loc[fitted["run_id"], "unstable"].to_numpy(float)
    return Configuration.fit(contexts, unstable)


def collapse_of(found: Scored) -> Collapse:
    """Returns the collapse residual, its curves fitted on the healthy runs of the fit split."""
    fitted = found.trials[found.trials["run_id"].isin(found.of("fit"))]
    healthy = found.labels.loc[fitted["run_id"], "healthy"].to_numpy(bool)
    return Collapse.fit(fitted[healthy], found.telemetry)


def predictors_of(found: Scored) -> dict[str, Predictor]:
    """Returns every predictor that is scored, by name."""
    return {
        OURS: found.model,
        CONFIGURATION: configuration_of(found),
        **BASELINES,
        COLLAPSE: collapse_of(found),
        **PEERS,
    }


def ranking(record: Record, found: Scored) -> pd.DataFrame:
    """Prints AUROC per predictor and split at 5 % of the steps; returns the forecasts."""
    predictors, at_start = predictors_of(found), scores_of(found.trials)
    record.say(f"INSIDE A RUN: {len(found.trials)} runs, labels at excess {UNSTABLE}")
    forecasts = pd.DataFrame()
    for after in (True, False):
        forecasts = replay(found.trials, found.telemetry, predictors, after_warmup=after)
        forecasts[RKSP] = at_start  # The same number at every step: no replay of it.
        where = f"warm-up + {EARLY:.0%}" if after else f"{EARLY:.0%}"
        record.say(f"\nAUROC at {where} of the steps (90 % interval, configurations resampled)")
        table = score_table(forecasts, found.labels["unstable"], found.splits, found.clusters)
        _say_table(record, table)
        if not after:
            _claim_ranking(record, table, forecasts, found)
    return forecasts


def _say_table(record: Record, table: pd.DataFrame) -> None:
    splits = [s for s in (*SPLITS, "all held out") if s in set(table["split"])]
    counts = table.drop_duplicates("split").set_index("split")
    head = [f"{s} ({counts.loc[s, 'n_unstable']}/{counts.loc[s, 'n']})" for s in splits]
    rows = []
    for name, part in table.groupby("predictor", sort=False):
        by = part.set_index("split")
        rows.append([name, *(_cell(by.loc[s]) for s in splits)])
    text = pd.DataFrame(rows, columns=["predictor (unstable/n)", *head]).to_string(index=False)
    record.say(text)


def _cell(row: pd.Series) -> str:
    unknown = f" ?{row['cannot_tell']}" if row["cannot_tell"] else ""
    return f"{row['auroc']:.3f} ({row['low']:.2f}-{row['high']:.2f}){unknown}"


def _claim_ranking(
    record: Record, table: pd.DataFrame, forecasts: pd.DataFrame, found: Scored
) -> None:
    unstable = found.labels["unstable"]
    ours = table[table["predictor"] == OURS].set_index("split")
    runs = found.of(*SIZES)
    value = auroc(forecasts.loc[runs, OURS].to_numpy(), unstable.loc[runs].to_numpy(bool))
    record.say("")
    record.claim(f"held-out sizes: AUROC {value:.3f} >= {SIZES_AUROC}", value >= SIZES_AUROC)
    for split in UNSEEN:
        value = ours.loc[split, "auroc"]
        record.claim(f"{split}: AUROC {value:.3f} >= {UNSEEN_AUROC}", value >= UNSEEN_AUROC)
    held_out = found.splits.index[found.splits != "fit"]
    scores = forecasts.loc[held_out, OURS].to_numpy()
    ece = expected_calibration_error(scores, unstable.loc[held_out].to_numpy(bool))
    record.claim(f"calibration error on all held-out runs {ece:.3f} <= {MAX_ECE}", ece <= MAX_ECE)
    record.say("\nGain in AUROC over the configuration alone, and over max logit alone (paired)")
    for name, group in {**{s: found.of(s) for s in UNSEEN}, "edge cells": _edge(found)}.items():
        for theirs in (CONFIGURATION, "max_logit"):
            part = forecasts.loc[forecasts.index.isin(group)]
            interval = gain(part, unstable, found.clusters, ours=OURS, theirs=theirs)
            record.say(
                f"  {name:14} over {theirs:14} {interval.value:+.3f} "
                f"({interval.low:+.3f} to {interval.high:+.3f}), {len(part)} runs"
            )


def _edge(found: Scored) -> pd.Index:
    """Held-out runs within one half-decade step of where their group turns unstable."""
    rate = found.trials.set_index("run_id")["optimizer.lr"]
    grouped = found.labels.join(rate).join(found.splits.rename("split"))
    grids = grouped[grouped["split"].isin(SIZES)]
    first = grids[grids["unstable"]].groupby("group")["optimizer.lr"].min()
    distance = np.log10(grids["optimizer.lr"] / grids["group"].map(first)).abs()
    return grids.index[distance <= 0.55]


def levels(record: Record, bank: Bank, found: Scored, forecasts: pd.DataFrame) -> None:
    """Repeats the ranking at other levels of excess; the model stays the one of the primary."""
    record.say("\nAUROC on all held-out runs at 5 % of the steps, by the level of the label")
    held_out = found.splits.index[found.splits != "fit"]
    names = [OURS, "max_logit", CONFIGURATION, "log_lr"]
    for level in LEVELS:
        unstable = label_runs(bank.trials, bank.telemetry, level=level)["unstable"].loc[held_out]
        values = {
            name: auroc(forecasts.loc[held_out, name].to_numpy(), unstable.to_numpy(bool))
            for name in names
        }
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        record.say(f"  e > {level:.2f} ({int(unstable.sum())} unstable): {shown}")


def healthy_counts(record: Record, found: Scored) -> None:
    """Prints how many healthy runs each split has, and how many configurations that is."""
    for split in SPLITS:
        runs = found.of(split)
        healthy = runs[found.labels.loc[runs, "healthy"].to_numpy(bool)]
        clusters = found.clusters.loc[healthy]
        bound = clustered_proportion(np.zeros(len(healthy)), clusters) if len(healthy) else None
        record.say(
            f"  {split:14} {len(runs):4} runs, {len(healthy):4} healthy in {clusters.nunique()} "
            f"configurations" + (f" (0 false stops would bound the rate by {bound.high:.1%})" if
            bound else "")
        )  # fmt: skip
