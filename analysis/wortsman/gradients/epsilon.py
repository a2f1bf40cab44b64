"""Figures 12 and E.15: loss and gradient RMS under several of AdamW's epsilons."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import LOSS_SEED_SD, Claim
from foretune.analysis.claims.intervals import pooled, unknown
from foretune.analysis.claims.words import Expected, claim
from foretune.analysis.laws.attenuation import EPSILON
from foretune.analysis.measures.signal import read_signal
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.runs import Runs, Variants, gather, recorded
from foretune.analysis.wortsman.traces import (
    Panel,
    at_nearest_rate,
    by_run,
    chosen_rungs,
    differences,
    trace_figure,
    variant_lines,
)

END: Final = (0.95, 1.0)
"""Shares of the steps over which the paper reads gradients: its last 500 of 1e5, rounded up to what
short runs record."""
GRADIENT_SD: Final = 0.06
"""Standard deviation of the log10 gradient RMS between seeds, dex."""
GRADIENTS: Final = ("grad_rms_mlp_in_layer0", "grad_rms_mlp_in")
FINDINGS: Final = {
    "small": "a smaller epsilon improves the loss of the largest model at the highest rate",
    "large": "too large an epsilon ruins training",
    "gradient": "a smaller epsilon keeps the gradients from collapsing",
}


def epsilon_traces(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    usual: float = 1e-8,
    lr: float = 0.3,
    rung: str | float | None = None,
    where: Mapping[str, Any] | None = None,
    name: str = "Figure 12",
) -> Answer:
    """What epsilon does to loss and gradients at one learning rate (the nearest) and size.

    Variants differ in `optimizer.epsilon`; all are held against the one with the `usual` value. At
    `rung` (the largest unless given). The table has every size and learning rate.
    `name` is what the title calls the figure.
    """
    given = epsilons_of(variants, usual)
    runs = gather(records, variants, where=where)
    order = sorted(variants, key=lambda label: given[label])
    reference = next(label for label in order if given[label] == usual)
    gradient = recorded(runs, *GRADIENTS) or GRADIENTS[0]
    cells = read_signal(runs.trials, runs.telemetry, signal=gradient, window=END)
    r = by_run(cells, cells["value"])
    at, rate = at_nearest_rate(runs, lr)
    rungs = chosen_rungs(at, None if rung is None else [str(rung)], (-1,))
    claims = _claims(at, order, reference, rungs, r, rate)
    title = f"{name}: AdamW's epsilon"
    if rungs and math.isfinite(rate):
        title += f" at size {rungs[0]} and learning rate {rate:g}"
    panels = [
        Panel(
            f"size {at_size}",
            words,
            variant_lines(at, order, at_size, column),
            log=column == gradient,
            smooth=column == "loss",
        )
        for at_size in rungs
        for column, words in (("loss", "training loss (nats)"), (gradient, "gradient RMS"))
    ]
    return Answer(_table(runs, given, r), claims, trace_figure(panels, across=2, title=title))


def epsilons_of(variants: Variants, usual: float) -> dict[str, float]:
    """The epsilon of each variant; ValueError where one has none, or none has the usual one."""
    given = {label: fields.get(EPSILON) for label, fields in variants.items()}
    if usual not in given.values() or None in given.values():
        raise ValueError(
            f"variants must each set {EPSILON}, one of them to usual={usual:g}, got {given}; add it"
        )
    return {label: float(value) for label, value in given.items() if value is not None}


def _claims(
    runs: Runs,
    order: list[str],
    reference: str,
    rungs: list[str],
    gradients: Mapping[str, float],
    rate: float,
) -> list[Claim]:
    losses = by_run(runs.trials, runs.trials["loss"])
    logs = {run: math.log10(r) if r > 0 else math.nan for run, r in gradients.items()}
    place = order.index(reference)
    where = f"at learning rate {rate:g}" + (f" and size {rungs[0]}" if rungs else "")

    def compared(kind: str, label: str, values: Mapping[str, float], expected: Expected) -> Claim:
        sd, unit, words = (
            (GRADIENT_SD, "decades", "log10 of the gradient RMS at the end")
            if kind == "gradient"
            else (LOSS_SEED_SD, "nats", "the final loss")
        )
        every = differences(runs, label, reference, values)
        parts = {rung: values for rung, values in every.items() if rung in rungs}
        why = runs.absent or "no seed ran both with that reading"
        return claim(
            f"{words}, epsilon {label} against {reference}",
            FINDINGS[kind],
            f"{where} {words} with epsilon {label} minus that with {reference}",
            pooled(parts.values(), sd=sd * math.sqrt(2)) if parts else unknown(why),
            expected,
            unit=unit,
        )

    found = [compared("small", label, losses, "lower") for label in order[:place]]
    found += [compared("gradient", label, logs, "higher") for label in order[:place]]
    return found + [compared("large", label, losses, "higher") for label in order[place + 1 :]]


def _table(runs: Runs, given: Mapping[str, Any], gradients: Mapping[str, float]) -> pd.DataFrame:
    """Loss (mean over seeds, nats) and gradient RMS of every epsilon, size and learning rate."""
    ids = runs.trials["run_id"].astype(str)
    trials = runs.trials.assign(log_r=np.log10(ids.map(dict(gradients)).astype(float)))
    cells = trials.groupby(["variant", "rung", "rung_n", "lr"], sort=False)
    table = cells.agg(loss=("loss", "mean"), log_r=("log_r", "mean"), n_seeds=("seed", "nunique"))
    table = table.reset_index()
    table["epsilon"] = table["variant"].map(dict(given)).astype(float)
    table["gradient_rms"] = 10 ** table.pop("log_r")
    table["r_over_epsilon"] = table["gradient_rms"] / table["epsilon"]
    table = table.sort_values(["rung_n", "lr", "epsilon"], ignore_index=True)
    return table.drop(columns="rung_n").rename(columns={"rung": "size"})
