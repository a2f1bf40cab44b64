"""Claims: forecasts inside a run and across scale, scored on runs that nothing was fitted on.

Everything comes from the frozen bank (`benchmarks/bank`, made by `foretune reproduce bank`), the
labels of `analysis.measures.labels` and the splits of `analysis.evaluation.splits`, all fixed
before.

    python -m benchmarks.science.forecast [--bank benchmarks/bank] [--figures docs/figures] [--save]

Peers need `pip install -c constraints.txt -e ".[bench]"`; without it they can't tell.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from benchmarks.record import Record
from benchmarks.science import forecast_inside as inside
from benchmarks.science import forecast_stopping as decisions
from benchmarks.science.forecast_features import collapse_as_feature
from benchmarks.science.forecast_scale import across_scale, held_out_laws
from foretune.analysis.evaluation.stop_curves import looks_at, saved_at, stop_curve
from foretune.analysis.figures.forecast_figures import (
    held_out_figure,
    lead_figure,
    reliability_figure,
    stop_figure,
)
from foretune.analysis.inside_run.landmark import SHIPPED
from foretune.analysis.inside_run.stopping import FALSE_STOPS
from foretune.analysis.records.bank import Bank, read_bank
from foretune.analysis.stats.scoring import reliability
from foretune.tuner import train
from foretune.tuner.config.override import dotted
from foretune.tuner.config.resolve import resolve
from foretune.tuner.planning.forecast_stop import ForecastStop
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.run import plan_part

BANK = Path(__file__).resolve().parents[1] / "bank"
SHOWN = ("foretune", "max_logit", "configuration", "log_lr", "attention_entropy", "loss_slope",
         "learning_curve", "skip_step")  # fmt: skip
MAX_COST = 0.01
COST_STEPS, COST_REPEATS = 300, 5
RERUN_EVERY = 4
CELL = ("model.width", "optimizer.lr", "model.qk_norm", "seed")
"""Fields that tell the runs of the bank's core apart."""
MAX_DIFFERENCE = 0.02
"""Nats between two machines: the same to the bit on one, chaotic in the last digits elsewhere."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores both forecasts on the frozen bank.")
    parser.add_argument("--bank", type=Path, default=BANK)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    record = Record("forecast")
    bank = read_bank(arguments.bank)
    found = inside.scored(bank)
    record.say(f"bank: {bank.facts['runs']} runs, {bank.facts['by_part']}")
    record.say(f"model: {SHIPPED.name}, fitted on {found.model.about['runs']} runs of split fit\n")
    inside.healthy_counts(record, found)
    across_scale(record, found)
    record.say("")
    forecasts = inside.ranking(record, found)
    inside.levels(record, bank, found, forecasts)
    collapse_as_feature(record, found)
    runs = decisions.stopping(record, found)
    curves = stop_curves(record, found, runs)
    decisions.searches(record, found, runs)
    decisions.cures(record, found)
    decisions.other_fixes(record, found)
    cost(record, found)
    rerun(record, bank)
    if arguments.figures:
        draw(arguments.figures, found, forecasts, runs, curves)
    return record.close(save=arguments.save)


def stop_curves(
    record: Record, found: inside.Scored, runs: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Prints and returns steps saved against false stops for every predictor, held-out runs."""
    held_out = found.trials[~found.trials["run_id"].isin(found.of("fit"))]
    predictors = inside.predictors_of(found)
    scores = looks_at(held_out, found.telemetry, predictors)
    curves = {name: stop_curve(scores[name], runs) for name in predictors}
    record.say(
        "\nSteps of unstable runs saved at 1, 5 and 10 % false stops, threshold chosen after"
    )
    for name, curve in curves.items():
        shown = ", ".join(f"{saved_at(curve, rate):.0%}" for rate in (0.01, 0.05, 0.10))
        record.say(f"  {name:20} {shown}")
    return curves


def cost(record: Record, found: inside.Scored) -> None:
    """Prints what the live rule adds to a step of the smallest model, both timed here in turn."""
    run = resolve("lm-tiny", size=16, overrides={"steps": COST_STEPS})
    times: dict[str, list[float]] = {"step": [], "rule": []}
    for _ in range(COST_REPEATS):
        rows: list[tuple[int, dict[str, float]]] = []
        started = time.perf_counter()
        train(run, lambda step, row, rows=rows: rows.append((step, dict(row))))
        times["step"].append((time.perf_counter() - started) / COST_STEPS)
        rule = ForecastStop(model=str(SHIPPED), false_stops=FALSE_STOPS, audit=0.0).rule(run)
        started = time.perf_counter()
        for step, row in rows:
            rule.observe(step, row)
        times["rule"].append((time.perf_counter() - started) / COST_STEPS)
    step, rule_s = (median(values) for values in times.values())
    record.claim(
        f"stop rule {rule_s * 1e6:.1f} us a step, training {step * 1e3:.2f} ms (width 16, "
        f"validations included): {rule_s / step:.2%} <= {MAX_COST:.0%}",
        rule_s / step <= MAX_COST,
    )


def rerun(record: Record, bank: Bank) -> None:
    """Trains a slice of the bank again and holds it against the records."""
    part = FIGURES["bank"].parts["tiny"]["core"]
    core = bank.trials[bank.trials["part"].eq("core")].set_index([*CELL])
    # By their settings: a field that joined since is part of a run's id, with today's default.
    runs = {
        tuple(dotted(run)[path] for path in CELL): run
        for run in plan_part(part, "core", seeds=1, overrides={}).runs()
    }
    slice_ = [cell for cell in runs if cell in core.index and core.loc[cell, "size"] <= 32]
    worst, same = 0.0, 0
    torch.set_num_threads(1)
    for cell in slice_[::RERUN_EVERY]:
        outcome = train(runs[cell], lambda step, row: None)
        recorded = core.loc[cell, "final_val_loss"]
        difference = abs((outcome.final_val_loss or 0.0) - recorded)
        worst, same = max(worst, difference), same + (difference == 0)
    count = len(slice_[::RERUN_EVERY])
    record.claim(
        f"{count} runs of the bank trained again: largest difference of a final loss {worst:.2g} "
        f"<= {MAX_DIFFERENCE} nats, {same} the same to the bit",
        count > 0 and worst <= MAX_DIFFERENCE,
    )


def draw(
    folder: Path,
    found: inside.Scored,
    forecasts: pd.DataFrame,
    runs: pd.DataFrame,
    curves: Mapping[str, pd.DataFrame],
) -> None:
    """Writes the figures of docs/forecasts.md."""
    folder.mkdir(parents=True, exist_ok=True)
    unstable = found.labels["unstable"]
    held_out = found.splits.index[found.splits != "fit"]
    tables = {
        name: reliability(
            forecasts.loc[rows, inside.OURS].to_numpy(), unstable.loc[rows].to_numpy()
        )
        for name, rows in {"all held out": held_out, "random searches": found.of("random")}.items()
    }
    figures = {
        "forecast_scale": held_out_figure(held_out_laws(found)),
        "forecast_reliability": reliability_figure(tables),
        "forecast_stops": stop_figure({n: curves[n] for n in SHOWN}, bound=FALSE_STOPS),
        "forecast_leads": lead_figure(runs[runs["split"] != "fit"]),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130)


if __name__ == "__main__":
    sys.exit(main())
