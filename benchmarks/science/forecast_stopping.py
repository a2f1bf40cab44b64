"""The part of `benchmarks/science/forecast.py` about decisions: which runs to stop, which fix they
want."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmarks.record import Record
from benchmarks.science.forecast_inside import Scored
from foretune.analysis.evaluation.backtest import clusters_of, context_of, histories, running_scores
from foretune.analysis.evaluation.cures import Cure, read_cures
from foretune.analysis.evaluation.rival_stoppers import REPLAYS
from foretune.analysis.evaluation.savings import savings, savings_table
from foretune.analysis.evaluation.splits import SPLITS, split_runs
from foretune.analysis.inside_run.features import Trace
from foretune.analysis.inside_run.stopping import FALSE_STOPS, threshold_of
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.twins import FIXES, twins_of
from foretune.analysis.stats.conformal import first_crossing
from foretune.analysis.stats.scoring import precision_recall
from foretune.analysis.stats.series import smoothed
from foretune.search_spaces.forecast_bank import SWITCHES

FIXABLE = (
    "schedule.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.epsilon",
    "loss.z_loss",
)
"""Switches that leave the budget and the model's size alone."""
MAX_FALSE_STOPS, MIN_SAVED = 0.05, 0.60
MIN_PRECISION, MIN_RECALL, MIN_TWINS = 0.95, 0.85, 100


def stop_steps(found: Scored, threshold: float) -> pd.Series:
    """Returns the step at which ours stops each run, NaN for never."""
    steps = {}
    for trial, history in histories(found.trials, found.telemetry):
        scores = running_scores(found.model, history, context_of(trial)).dropna()
        steps[trial["run_id"]] = first_crossing(
            scores.index.to_numpy(), scores.to_numpy(), threshold
        )
    return pd.Series(steps, dtype=float)


def runs_of(found: Scored, stops: pd.Series) -> pd.DataFrame:
    """Returns the frame that `savings` takes, indexed by run_id."""
    trials = found.trials.set_index("run_id")
    return pd.DataFrame(
        {
            "total_steps": trials["last_step"],
            "stop_step": stops,
            "unstable": found.labels["unstable"],
            "healthy": found.labels["healthy"],
            "final": np.fmin(trials["final_val_loss"], trials["reference_loss"]),
            "cluster": found.clusters,
            "group": trials["part"],
            "split": found.splits,
        }
    )


def stopping(record: Record, found: Scored) -> pd.DataFrame:
    """Prints what stopping by ours saves and costs; returns a row per run."""
    threshold = threshold_of(found.model, FALSE_STOPS)
    runs = runs_of(found, stop_steps(found, threshold))
    held_out = runs[runs["split"] != "fit"]
    record.say(f"\nSTOPPING at the threshold for {FALSE_STOPS:.0%} false stops ({threshold:.3f})")
    rows = []
    for split in [*SPLITS, "all held out"]:
        part = held_out if split == "all held out" else runs[runs["split"] == split]
        result = savings(part, draws=300)
        rows.append(
            {
                "split": split,
                "unstable": int(part["unstable"].sum()),
                "healthy": int(part["healthy"].sum()),
                "caught": result.caught.k,
                "saved of unstable": f"{result.saved_unstable.value:.0%}",
                "false stops": f"{result.false_stops.k}/{result.false_stops.n}",
                "at most (95 %)": f"{result.false_stops.high:.1%}",
                "lead": f"{result.lead:.0%}",
            }
        )
    record.say(pd.DataFrame(rows).to_string(index=False))
    pooled = savings(held_out, draws=300)
    high = pooled.false_stops.high
    record.claim(
        f"pooled false stops {pooled.false_stops.k}/{pooled.false_stops.n}, upper 95 % bound "
        f"{high:.1%} <= {MAX_FALSE_STOPS:.0%}",
        high <= MAX_FALSE_STOPS,
    )
    saved = pooled.saved_unstable.value
    record.claim(f"steps of unstable runs saved {saved:.0%} >= {MIN_SAVED:.0%}", saved >= MIN_SAVED)
    return runs


def searches(record: Record, found: Scored, runs: pd.DataFrame) -> None:
    """Prints ours beside and together with the usual rules on the three random searches."""
    drawn = found.trials[found.trials["run_id"].isin(found.drawn)]
    info = drawn.assign(group=drawn["part"], total_steps=drawn["last_step"])
    curves = found.telemetry[found.telemetry["run_id"].isin(drawn["run_id"])]
    curves = curves.assign(
        smooth=curves.groupby("run_id", observed=True)["loss"].transform(
            lambda loss: smoothed(loss.to_numpy(float))
        )
    )
    ours = runs.loc[drawn["run_id"]]
    table: dict[str, pd.DataFrame] = {"forecast": ours}
    for name, rule in REPLAYS.items():
        stops = rule(curves, info, loss="smooth")
        alone = ours.assign(stop_step=stops.loc[ours.index])
        table[name] = alone
        both = np.fmin(alone["stop_step"], ours["stop_step"])
        table[f"forecast + {name}"] = ours.assign(stop_step=both)
    shown = savings_table(table)[["saved", "saved_unstable", "regret", "winners_stopped"]]
    record.say(
        f"\nRANDOM SEARCHES ({len(drawn)} runs of 3 searches): each rule alone and with ours"
    )
    record.say(shown.round(3).to_string())


def cures(record: Record, found: Scored) -> None:
    """Prints how well each fix's worth is forecast from the first tenth of the unfixed run."""
    record.say(
        f"\nCAUSE: is a fix worth more than {WORTH:g} nats, told from the first 10 % of the steps?"
    )
    known = {cure.fix: cure for cure in read_cures()}
    telemetry = dict(tuple(found.telemetry.groupby("run_id", observed=True)))
    split, clusters = split_runs(found.everything), clusters_of(found.everything)
    for fix in FIXES:
        for name in ("random", "size 4x", "intervention", "text", "architecture", "number format"):
            # A twin needs no label of its own, so searches count whole.
            twins = twins_of(found.everything[split.eq(name)], fix)
            if len(twins):
                _say_cure(record, known[fix], twins, telemetry, clusters, name)


def _say_cure(
    record: Record,
    cure: Cure,
    twins: pd.DataFrame,
    telemetry: Mapping[str, pd.DataFrame],
    clusters: pd.Series,
    split: str,
) -> None:
    flagged = []
    for trial in twins.to_dict("records"):
        history = telemetry[trial["run_id"]]
        seen = history[history["step"] < 0.1 * trial["steps"]]
        flagged.append(cure.judge(Trace.of(seen), context_of(trial)).worth)
    worth = (twins["benefit"] > WORTH).to_numpy()
    precision, recall = precision_recall(
        np.array(flagged), worth, clusters=clusters.loc[twins["run_id"]]
    )
    benefit = twins["benefit"].to_numpy()
    chosen = np.array(flagged, bool)
    means = [benefit[mask].mean() if mask.any() else math.nan for mask in (chosen, ~chosen)]
    text = (
        f"{cure.fix}, {split}: precision {precision.k}/{precision.n} = {precision.value:.2f} "
        f"({precision.low:.2f}-{precision.high:.2f}), recall {recall.k}/{recall.n} = "
        f"{recall.value:.2f} ({recall.low:.2f}-{recall.high:.2f}), {len(twins)} twins; mean "
        f"benefit {means[0]:.2f} nats where flagged, {means[1]:.2f} where not"
    )
    if cure.fix == "qk-layernorm" and split == "random" and len(twins) >= MIN_TWINS:
        good = precision.value >= MIN_PRECISION and recall.value >= MIN_RECALL
        record.claim(f"{text} (bounds {MIN_PRECISION}, {MIN_RECALL})", good)
    else:
        record.say(f"  {text}")


def other_fixes(record: Record, found: Scored) -> None:
    """Prints what every other switch was worth against the preset at the same size and rate."""
    trials = found.everything
    plain = trials["model.qk_norm"].eq(False) & trials["seed"].eq(0) & trials["steps"].eq(300)
    capped = trials[plain].assign(final=np.fmin(trials["final_val_loss"], trials["reference_loss"]))
    cell = ["size", "optimizer.lr"]
    preset = capped[capped["part"].eq("core")].set_index(cell)["final"]
    record.say("\nother switches without qk-layernorm (one seed): nats that each was worth")
    for field, values in SWITCHES.items():
        for value in values if field in FIXABLE else ():
            own = capped[
                capped["part"].eq("switches") & np.isclose(capped[field].astype(float), value)
            ]
            worth = preset.loc[list(zip(own["size"], own["optimizer.lr"], strict=True))].to_numpy()
            benefit = worth - own["final"].to_numpy()
            record.say(
                f"  {field} {value:g}: mean {benefit.mean():+.3f}, more than {WORTH:g} in "
                f"{int((benefit > WORTH).sum())} of {len(benefit)} cells, "
                f"at most {benefit.max():.2f}"
            )
