"""Loss against learning rate per size, and LR sensitivity against N: figures 1, 3, 5-8, E.2-E.11.

The paper has a panel of curves per setting above, and lines of sensitivity per setting below.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.intervals import LEVEL, Interval, pooled
from foretune.analysis.claims.words import cannot_tell
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves.curves import (
    MEASURES,
    Curve,
    Window,
    best_lrs,
    curves,
    high_side,
    whole,
)
from foretune.analysis.wortsman.curves.curves_figure import curves_figure
from foretune.analysis.wortsman.curves.questions import Compare, Question, ask
from foretune.analysis.wortsman.runs import Variants, gather

LESS_SENSITIVE: Final = Compare(
    measure="sensitivity", expected="lower", finding="the intervention lowers LR sensitivity"
)


def loss_curves(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    questions: Sequence[Question] = (LESS_SENSITIVE,),
    reference: str = "",
    windows: Mapping[str, Sequence[Window]] | None = None,
    where: Mapping[str, Any] | None = None,
    below: Sequence[str] = ("sensitivity",),
    title: str = "",
) -> Answer:
    """The answer of a figure of curves.

    `questions` are asked of each variant against `reference` (the first variant unless given).
    `windows` are learning rates to choose a variant's sensitivity from, the smaller one; `where`
    keeps runs with these values; `below` names the measures that are drawn against N (of
    `sensitivity`, `high_side`, `best_loss`, `high_loss`, `best_lr`).
    """
    reference = reference or next(iter(variants))
    if reference not in variants:
        raise ValueError(
            f"reference must be one of {', '.join(variants)}, got {reference!r}; choose one"
        )
    unknown = [name for name in below if name not in MEASURES]
    if unknown:
        raise ValueError(f"below must name {', '.join(MEASURES)}, got {unknown[0]!r}; choose one")
    runs = gather(records, variants, where=where)
    found = curves(runs, windows)
    table = curve_table(found)
    claims = [c for question in questions for c in ask(question, found, runs.variants, reference)]
    if runs.absent:
        claims.append(cannot_tell("every variant", "the figure compares them", runs.absent))
    return Answer(table, claims, curves_figure(found, runs.variants, below, title))


def curve_table(found: Sequence[Curve]) -> pd.DataFrame:
    """What each curve says, tidy: losses in nats, learning rates with an interval over seeds."""
    rows = [_row(curve) for curve in found]
    empty = pd.DataFrame(columns=["variant", "size", "n_params", "sensitivity", "best_loss"])
    return pd.DataFrame(rows) if rows else empty


def _row(curve: Curve) -> dict[str, Any]:
    result = whole(curve)
    best = _over_seeds(curve, "best_loss")
    rates = best_lrs(curve)
    refined = _over_seeds(curve, "best_lr")
    upper = high_side(curve)
    high = MEASURES["high_loss"].of(curve)
    return {
        "variant": curve.variant,
        "size": curve.rung,
        "n_params": curve.n_params,
        "sensitivity": result.value,
        "low": result.low,
        "high": result.high,
        "high_side": float(upper.mean()) if len(upper) else math.nan,
        "best_loss": best.value,
        "best_loss_low": best.low,
        "best_loss_high": best.high,
        "high_loss": float(high.mean()) if len(high) else math.nan,
        "best_lr": result.best_lr,
        "best_lr_refined": 10**refined.value,
        "best_lr_low": 10**refined.low,
        "best_lr_high": 10**refined.high,
        "edge": bool((rates["low"] < rates["high"]).any()),
        "n_seeds": result.n_seeds,
        "n_lr": result.n_lr,
        "window": "" if curve.window is None else f"{curve.window[0]:g} to {curve.window[1]:g}",
        "status": result.status,
    }


def _over_seeds(curve: Curve, name: str, level: float = LEVEL) -> Interval:
    measure = MEASURES[name]
    return pooled([measure.of(curve)], sd=measure.sd, level=level)
