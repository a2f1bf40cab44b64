"""What a figure of curves is asked: comparisons of two variants, and trends with size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.claims import Claim
from analysis.paper_figures.curves import (
    MEASURES,
    Curve,
    Measure,
    best_lrs,
    on_common_grid,
)
from analysis.paper_figures.noise import Interval, pooled, slope, unknown
from analysis.paper_figures.words import Expected, claim, told

Curves = Sequence[Curve]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Whether each variant's number is lower (say) than the reference's, paired by seed."""

    measure: str
    expected: Expected
    finding: str
    """What the source found, a clause."""
    at: Literal["every size", "the smallest size", "the largest size", "equal N"] = "every size"
    """`equal N` is the largest N that both reach, interpolated between their own sizes: for
    variants that are ladders themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Whether a number rises (`higher`) or falls with log10 N."""

    measure: str
    expected: Expected
    finding: str
    of: Literal["every variant", "the reference", "the others"] = "every variant"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendDifference:
    """Whether a number's slope in log10 N is lower (say) than the reference's.

    `steadier` asks whether it is closer to zero.
    """

    measure: str
    expected: Literal["lower", "higher", "steadier"]
    finding: str


Question = Compare | Trend | TrendDifference


def ask(question: Question, curves: Curves, variants: Sequence[str], reference: str) -> list[Claim]:
    """The claims that answer a question: one per variant, or per variant but the reference."""
    of = {v: [curve for curve in curves if curve.variant == v] for v in variants}
    others = [v for v in variants if v != reference]
    if isinstance(question, Trend):
        asked = {"every variant": variants, "the reference": [reference], "the others": others}
        return [_trend(question, v, of[v]) for v in asked[question.of]]
    if isinstance(question, Compare):
        return [_compare(question, (v, of[v]), (reference, of[reference])) for v in others]
    return [_trend_difference(question, (v, of[v]), (reference, of[reference])) for v in others]


Side = tuple[str, Curves]


def _compare(question: Compare, left: Side, right: Side) -> Claim:
    measure = MEASURES[question.measure]
    name = f"{measure.words}, {left[0]} against {right[0]}"
    if question.at == "equal N":
        by_size = _at_equal_n(measure, left, right)
    else:
        by_size = paired(measure, left[1], right[1])
        ends = {"the smallest size": slice(0, 1), "the largest size": slice(-1, None)}
        chosen = list(by_size)[ends.get(question.at, slice(None))]
        by_size = {rung: by_size[rung] for rung in chosen}
    if question.at != "every size":
        name += f", {question.at}"
    sd = measure.sd * math.sqrt(2)
    found = pooled(by_size.values(), sd=sd) if by_size else unknown(_why(left, right))
    what = f"{measure.words} of {left[0]} minus that of {right[0]}"
    what += f" ({question.at})" if question.at != "every size" else ""
    return claim(
        name,
        question.finding,
        what,
        found,
        question.expected,
        unit=measure.unit,
        digits=measure.digits,
        tolerance=measure.same,
        by_size={rung: pooled([part], sd=sd) for rung, part in by_size.items()},
    )


def paired(measure: Measure, left: Curves, right: Curves) -> dict[str, np.ndarray]:
    """Left minus right of every seed that both have, by rung, the smallest rung first."""
    others = {curve.rung: curve for curve in right}
    found = {}
    for curve in sorted(left, key=lambda curve: curve.rung_n):
        if curve.rung not in others:
            continue
        a, b = on_common_grid(curve, others[curve.rung])
        if min(len(a.lrs), len(b.lrs)) < 2:
            continue
        values = (measure.of(a) - measure.of(b)).dropna().to_numpy(float)
        if len(values):
            found[curve.rung] = values
    return found


def _at_equal_n(measure: Measure, left: Side, right: Side) -> dict[str, np.ndarray]:
    tables = [rows(measure, curves) for _, curves in (left, right)]
    if any(table.empty for table in tables):
        return {}
    x = min(float(table["x"].max()) for table in tables)
    if any(x < float(table["x"].min()) for table in tables):
        return {}
    a, b = (_interpolated(table, x) for table in tables)
    values = (a - b).dropna().to_numpy(float)
    return {f"of {10**x:.3g} parameters": values} if len(values) else {}


def _interpolated(table: pd.DataFrame, x: float) -> pd.Series:
    found = {}
    for seed, own in table.sort_values("x").groupby("seed"):
        if own["x"].iloc[0] <= x <= own["x"].iloc[-1]:
            found[seed] = float(np.interp(x, own["x"].to_numpy(), own["y"].to_numpy()))
    return pd.Series(found, dtype=float)


def rows(measure: Measure, curves: Curves) -> pd.DataFrame:
    """A measure of every curve and seed: columns x (log10 N), y, seed, rung; for best learning
    rates `low` and `high` as well."""
    parts = []
    for curve in curves:
        if measure is MEASURES["best_lr"]:
            part = best_lrs(curve).reset_index()
        else:
            part = measure.of(curve).rename("y").reset_index()
        parts.append(part.assign(x=math.log10(curve.n_params), rung=curve.rung))
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in ("x", "y", "seed", "rung")})
    return pd.concat(parts, ignore_index=True) if parts else empty


def trend(measure: Measure, curves: Curves) -> Interval:
    """The slope of a measure in log10 N."""
    return slope(rows(measure, curves), noise=measure.sd)


def _trend(question: Trend, variant: str, curves: Curves) -> Claim:
    measure = MEASURES[question.measure]
    name = f"{measure.words} and N, {variant}"
    what = f"the slope of {measure.words} in log10 N of {variant}"
    unit = f"{measure.unit} a decade of N"
    return claim(
        name,
        question.finding,
        what,
        trend(measure, curves),
        question.expected,
        unit=unit,
        digits=measure.digits,
        tolerance=measure.same,
    )


def _trend_difference(question: TrendDifference, left: Side, right: Side) -> Claim:
    measure = MEASURES[question.measure]
    both = pd.concat([rows(measure, part[1]).assign(left=part is left) for part in (left, right)])
    found = slope(both, noise=measure.sd, within="left", against="left")
    own = [trend(measure, curves) for _, curves in (left, right)]
    expected, turned = question.expected, found
    if expected == "steadier":
        expected, turned = "lower", _movement(own[0], own[1], found)
    what = f"the slope of {measure.words} in log10 N of {left[0]} minus that of {right[0]}"
    if question.expected == "steadier":
        what = f"how much more {measure.words} moves with log10 N in {left[0]} than in {right[0]}"
    slopes = "; ".join(
        f"the slope of {variant} is {told(part, measure.unit, measure.digits)}"
        for (variant, _), part in zip((left, right), own, strict=True)
        if part.known
    )
    return claim(
        f"{measure.words} and N, {left[0]} against {right[0]}",
        question.finding,
        what,
        turned,
        expected,
        unit=f"{measure.unit} a decade of N",
        digits=measure.digits,
        also=f"{slopes[0].upper()}{slopes[1:]}." if slopes else "",
    )


def _movement(own: Interval, reference: Interval, difference: Interval) -> Interval:
    """|slope| minus the reference's, with the interval of the slopes' difference."""
    if not (own.known and reference.known and difference.known):
        return difference
    moved = abs(own.value) - abs(reference.value)
    half = (difference.high - difference.low) / 2
    return Interval(moved, moved - half, moved + half, difference.n_seeds, difference.n_sizes)


def _why(left: Side, right: Side) -> str:
    lacking = [variant for variant, curves in (left, right) if not curves]
    if lacking:
        return f"no run of {' or '.join(lacking)} has ended"
    return "no seed ran both over the same learning rates at one size"
