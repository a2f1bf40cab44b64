"""The sentence of a claim: what the source found, what these runs measured, over how many."""

from collections.abc import Mapping
from typing import Literal

from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import LEVEL, Interval
from foretune.analysis.stats.verdict import Verdict

Expected = Literal["lower", "higher", "same", "not lower"]
"""Which side of zero the source's finding lies on; `same` and `not lower` have a tolerance."""


def verdict(found: Interval, expected: Expected, tolerance: float = 0.0) -> Verdict:
    """Whether an interval bears a finding out.

    `same` holds where the whole interval lies within the tolerance around zero, `not lower` where
    it lies above minus the tolerance; both fail where it excludes zero and that.
    """
    if not found.known:
        return Verdict.CANNOT_TELL
    if expected == "lower":
        return Verdict.of(found.sign < 0, found.sign > 0)
    if expected == "higher":
        return Verdict.of(found.sign > 0, found.sign < 0)
    inside = found.low > -tolerance and (expected == "not lower" or found.high < tolerance)
    above = found.low > tolerance and expected == "same"
    return Verdict.of(inside, found.high < -tolerance or above)


def with_interval(found: Interval, unit: str = "", digits: int = 3, level: float = LEVEL) -> str:
    """A number with its interval, or why there is none."""
    if not found.known:
        return f"not known: {found.reason or 'no reading'}"
    value, low, high = (f"{x:+.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value}{f' {unit}' if unit else ''} ({level:.0%} interval {low} to {high})"


def _short(found: Interval, digits: int) -> str:
    value, low, high = (f"{x:+.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def counted(found: Interval) -> str:
    """How many seeds and sizes a number rests on."""
    return f"{plural(found.n_seeds, 'seed')} at {plural(found.n_sizes, 'size')}"


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def numbers(found: Interval, name: str, **others: float) -> dict[str, float]:
    """An interval as a claim's numbers; empty where nothing is known."""
    if not found.known:
        return {}
    own = {name: found.value, "low": found.low, "high": found.high}
    return own | {"seeds": float(found.n_seeds), "sizes": float(found.n_sizes)} | others


def claim(
    name: str,
    finding: str,
    what: str,
    found: Interval,
    expected: Expected,
    *,
    unit: str = "",
    digits: int = 3,
    tolerance: float = 0.0,
    by_size: Mapping[str, Interval] | None = None,
    also: str = "",
) -> Claim:
    """A finding of the source held against a number; `what` names the number.

    `by_size` adds its parts, `also` a sentence more.
    """
    here = verdict(found, expected, tolerance)
    start = f"Source A: {finding}. {here.here}: {what} "
    if not found.known:
        text = f"{start}is {with_interval(found)}."
        return Claim(name, f"{text} {also}".strip(), here, {})
    parts = {k: part for k, part in (by_size or {}).items() if part.known}
    listed = "; ".join(f"{_short(part, digits)} at size {k}" for k, part in parts.items())
    text = f"{start}is {with_interval(found, unit, digits)}, {counted(found)}"
    text += f" [{listed}]." if len(parts) > 1 else "."
    if expected in ("same", "not lower"):
        text += f" Up to {tolerance:g} {unit} counts as none."
    by_number = {f"size {k}": part.value for k, part in parts.items()}
    return Claim(name, f"{text} {also}".strip(), here, numbers(found, "value", **by_number))


def cannot_tell(name: str, finding: str, reason: str) -> Claim:
    """A finding that these runs say nothing about, and why."""
    here = Verdict.CANNOT_TELL
    return Claim(name, f"Source A: {finding}. {here.here}: {reason}.", here, {})
