"""What a figure of curves is asked: comparisons of two variants, and trends with size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import Interval, pooled, slope, unknown
from foretune.analysis.claims.words import Expected, claim, with_interval
from foretune.analysis.wortsman.curves.curves import (
    MEASURES,
    Curve,
    Measure,
    best_lrs,
    on_common_grid,
)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolate:
    """Whether each variant's own largest size is forecast worse from its others than the
    reference's is: by a power law of N through each seed's smaller sizes."""

    measure: str
    finding: str


Question = Compare | Trend | TrendDifference | Extrapolate


GROWS: Final = (
    Trend(measure="sensitivity", expected="higher", finding="LR sensitivity grows with N"),
    Trend(
        measure="high_side",
        expected="higher",
        finding="LR sensitivity grows with N (short runs show it from the best learning rate up)",
    ),
)
"""Source A's main finding, for any figure of curves."""


def ask(question: Question, curves: Curves, variants: Sequence[str], reference: str) -> list[Claim]:
    """The claims that answer a question: one per variant, or per variant but the reference."""
    of = {v: [curve for curve in curves if curve.variant == v] for v in variants}
    others = [v for v in variants if v != reference]
    if isinstance(question, Trend):
        asked = {"every variant": variants, "the reference": [reference], "the others": others}
        return [_trend(question, v, of[v]) for v in asked[question.of]]
    if isinstance(question, Compare):
        return [_compare(question, (v, of[v]), (reference, of[reference])) for v in others]
    if isinstance(question, Extrapolate):
        return [_extrapolated(question, (v, of[v]), (reference, of[reference])) for v in others]
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
        parts.append(part.assign(x=curve_x(curve), rung=curve.rung))
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
        f"the slope of {variant} is {with_interval(part, measure.unit, measure.digits)}"
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


MISSES_SD: Final = 2.0
"""Noise of a forecast's miss between seeds, in that of a loss: what is fitted has noise, too."""


def _extrapolated(question: Extrapolate, left: Side, right: Side) -> Claim:
    measure = MEASURES[question.measure]
    missed = [misses(measure, curves) for _, curves in (left, right)]
    lacking = [v for (v, _), own in zip((left, right), missed, strict=True) if own.empty]
    verb = "lack" if len(lacking) > 1 else "lacks"
    why = f"{' and '.join(lacking)} {verb} three sizes" if lacking else "no seed ran both"
    apart = (missed[0].abs() - missed[1].abs()).dropna().to_numpy(float)
    sd = MISSES_SD * measure.sd
    own = "; ".join(
        f"{variant} ends {with_interval(pooled([part], sd=sd), measure.unit)} off"
        for (variant, _), part in zip((left, right), missed, strict=True)
        if len(part)
    )
    return claim(
        f"{measure.words} forecast, {left[0]} against {right[0]}",
        question.finding,
        f"how much further off a power law's forecast of {measure.words} of the largest size is "
        f"for {left[0]} than for {right[0]}",
        pooled([apart], sd=sd * math.sqrt(2)) if len(apart) else unknown(why),
        "higher",
        unit=measure.unit,
        digits=measure.digits,
        also=f"Measured minus forecast: {own}." if own else "",
    )


def misses(measure: Measure, curves: Curves) -> pd.Series:
    """Measured minus forecast at the largest size, by seed: a line in log10 N of the logarithm of
    the measure through that seed's smaller sizes, of which it takes two."""
    found = {}
    for seed, own in rows(measure, curves).groupby("seed"):
        own = own.sort_values("x")
        x, y = own["x"].to_numpy(float), own["y"].to_numpy(float)
        if len(x) < 3 or not (y > 0).all() or x[-1] < max(curve_x(curve) for curve in curves):
            continue
        line = np.polyfit(x[:-1], np.log(y[:-1]), 1)
        found[int(str(seed))] = float(y[-1] - np.exp(np.polyval(line, x[-1])))
    return pd.Series(found, dtype=float)


def curve_x(curve: Curve) -> float:
    """log10 of a curve's parameters."""
    return math.log10(curve.n_params)


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
