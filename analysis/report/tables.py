"""The report's tables as they are read: numbers beside their intervals, in few columns."""

import math
from dataclasses import asdict, dataclass

import pandas as pd

from foretune.analysis.claims.format_cells import LEVEL
from foretune.analysis.claims.format_summary import Formats
from foretune.analysis.measures.crossing import Where
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.records.schema import OUTCOMES
from foretune.analysis.report.findings import Findings
from foretune.analysis.report.page import show
from foretune.analysis.stats.status import CANNOT_TELL


@dataclass(frozen=True, slots=True)
class Shown:
    """A table for the page, and the CSV file that holds its numbers in full."""

    frame: pd.DataFrame
    caption: str
    file: str


def csv_tables(found: Findings) -> dict[str, pd.DataFrame]:
    """Every table in full, by the stem of its CSV file."""
    return {
        "trials": found.records.trials,
        "cells": found.cells,
        "sensitivity": found.sensitivity,
        "critical_lr": found.critical,
        "read_windows": found.windows,
        "forecasts": pd.DataFrame([asdict(forecast) for forecast in found.forecasts]),
        "claims": pd.DataFrame([claim.row() for claim in found.claims]),
        "checks": pd.DataFrame([check.row() for _, check in found.checks]),
        "outcomes": _outcomes(found),
    } | _format_tables(found)


def _format_tables(found: Findings) -> dict[str, pd.DataFrame]:
    if found.formats is None:
        return {}
    claims = pd.DataFrame([claim.row() for claim in found.formats.claims])
    return {"formats": found.formats.table, "format_claims": claims}


def formats(found: Formats) -> Shown:
    """Every number format and size at its best learning rate, best first inside a size."""
    table = found.table
    values = zip(table["value"], table["low"], table["high"], table["n_seeds"], strict=True)
    name = {"loss": "final loss (nats)", "error": "share wrong"}[found.metric]
    frame = pd.DataFrame(
        {
            "size": table["size"],
            "format": table["quantizer"],
            "parameters": table["n_params"],
            "bytes of the weights": table["weight_bytes"],
            "best LR": table["best_lr"],
            "at the grid's edge": table["edge"],
            name: [_interval(v, a, b) if n > 1 else f"{v:.3f}" for v, a, b, n in values],
            "seeds": table["n_seeds"],
        }
    )
    caption = (
        f"Number formats{f' ({found.setting})' if found.setting else ''}, each at the learning "
        f"rate that is best over its seeds, with {LEVEL:.0%} intervals of the mean. Where that is "
        "the grid's edge, a better one may lie outside."
    )
    return Shown(frame, caption, "formats.csv")


def forecasts(found: Findings) -> Shown:
    """The critical learning rates expected at sizes that were not run."""
    rows = [
        {
            "parameters": forecast.n_params,
            "critical LR": _interval(forecast.critical_lr, forecast.low, forecast.high),
            forecast.loss_kind: _interval(
                forecast.loss_critical_lr, forecast.loss_low, forecast.loss_high
            ),
            "status": forecast.status,
        }
        for forecast in found.forecasts
    ]
    family = found.family.label if found.family is not None else ""
    caption = f"Expected at sizes that were not run ({family}), with {found.level:.0%} intervals."
    return Shown(pd.DataFrame(rows), caption, "forecasts.csv")


def sensitivity(found: Findings) -> Shown:
    """LR sensitivity of every family and size."""
    table = found.sensitivity
    intervals = zip(table["sensitivity"], table["low"], table["high"], strict=True)
    frame = pd.DataFrame(
        {
            "family": table["family"],
            "size": table["size"],
            "parameters": table["n_params"],
            "sensitivity (nats)": [_interval(*numbers) for numbers in intervals],
            "from the best LR up": table["high_side"],
            "best LR": table["best_lr"],
            "best loss (nats)": [f"{loss:.3f}" for loss in table["best_loss"]],
            "LRs": table["n_lr"],
            "seeds": table["n_seeds"],
        }
    )
    caption = (
        f"LR sensitivity with {found.level:.0%} intervals: mean over the grid of min(loss, loss at "
        "init) minus the best loss. It says nothing where a family changes what a learning rate "
        "means."
    )
    return Shown(frame, caption, "sensitivity.csv")


def critical(found: Findings) -> Shown:
    """The learning rates at which the signal and the loss cross their lines."""
    table = found.critical
    frame = table[["family", "size", "n_params", "seed"]].rename(columns={"n_params": "parameters"})
    if not found.absent:
        frame[f"signal reaches {found.threshold:g}"] = _crossings(table, "critical_lr", "status")
    frame[f"{WORTH:g} nats above its twin"] = _crossings(table, "penalty_lr", "penalty_status")
    frame[f"{WORTH:g} nats above its best"] = _crossings(table, "excess_lr", "excess_status")
    caption = (
        "Critical learning rates. `above the grid` means that no learning rate of the grid was "
        "high enough, `below the grid` that all were too high."
    )
    return Shown(frame, caption, "critical_lr.csv")


def windows(found: Findings) -> Shown:
    """Critical learning rates with one column per part of the run that was read."""
    own = found.windows
    if found.family is not None:
        own = own[own["family"] == found.family.label]
    read = [
        f"{start:.0%} to {end:.0%}" for start, end in zip(own["start"], own["end"], strict=True)
    ]
    wide = own.assign(read=read).pivot_table(
        index=["family", "size", "n_params"],
        columns="read",
        values="critical_lr",
        aggfunc="mean",
        sort=False,
    )
    caption = (
        "Critical learning rate by the part of the run that was read, mean over seeds: where these "
        "differ, so would the forecast."
    )
    frame = wide.reset_index().rename(columns={"n_params": "parameters"})
    return Shown(frame, caption, "read_windows.csv")


def outcomes(found: Findings) -> Shown:
    """How the runs ended, and why."""
    return Shown(_outcomes(found), "How the runs ended.", "outcomes.csv")


def _outcomes(found: Findings) -> pd.DataFrame:
    """How many runs ended in each way, and why."""
    trials = found.records.trials
    counts = trials.groupby(["outcome", "reason"]).size().reset_index(name="runs")
    counts["meaning"] = counts["outcome"].map(dict(OUTCOMES))
    return counts[["outcome", "runs", "reason", "meaning"]].sort_values(
        ["outcome", "runs"], ascending=[True, False], ignore_index=True
    )


def _crossings(table: pd.DataFrame, value: str, status: str) -> list[str]:
    """The learning rate where it was crossed, else why there is none."""
    pairs = zip(table[value], table[status], strict=True)
    return [show(float(lr)) if found == Where.CROSSED else str(found) for lr, found in pairs]


def _interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return CANNOT_TELL
    return f"{show(value)} ({show(low)} to {show(high)})"
