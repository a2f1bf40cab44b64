"""What a sweep shows, as sentences computed from its data: they say the opposite if it does."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from analysis.critical import SIGNAL, read_signal
from analysis.critical_law import CriticalLaw
from analysis.families import FIXES, Family, families, twin_of
from analysis.records import Records
from analysis.sensitivity import sensitivity_table

LOSS_SEED_SD: Final = 0.04
"""Standard deviation of one final loss between seeds, nats: 0.004 to 0.09, root mean square 0.04,
over three seeds of the byte language model at widths 16 to 64 and five learning rates."""
RISES: Final = 0.8
"""Rank correlation from which a curve counts as rising."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, and whether the data bear it out; None where they cannot tell."""

    name: str
    sentence: str
    holds: bool | None
    numbers: dict[str, float]


def claims(
    records: Records, law: CriticalLaw, *, signal: str = SIGNAL, level: float = 0.9
) -> list[Claim]:
    """Every claim about a sweep: of each pair without and with the cure, of the signal, of the law.

    `law` is the fitted law of the critical learning rate of the family in question.
    """
    every = list(families(records.trials))
    pairs = [(f, twin) for f in every if (twin := twin_of(f, every, signal)) is not None]
    table = sensitivity_table(records.trials, level=level)
    found = []
    for without, cured in pairs:
        found += [sensitivity_claim(table, without, cured), high_lr_claim(records, without, cured)]
    if not pairs:
        fix = FIXES.get(signal, "a cure")
        text = f"Cannot tell what {fix} changes: no two families differ in it alone."
        found.append(Claim("the cure", text, None, {}))
    fix = FIXES.get(signal, "")
    bare = [f for f in every if not f.values.get(fix, False) and len(f.trials) >= 2]
    for family in bare:
        found.append(size_claim(table, family))
        cells = read_signal(family.trials, records.telemetry, signal=signal)
        found += [_grows(cells, family, signal, *axes) for axes in AXES]
    return [*found, slope_claim(law)]


def sensitivity_claim(table: pd.DataFrame, without: Family, cured: Family) -> Claim:
    """Whether the cure lowers LR sensitivity, size by size."""
    columns = ["size", "sensitivity", "low", "high"]
    left, right = (table[table["family"] == f.label][columns] for f in (without, cured))
    both = left.merge(right, on="size", suffixes=("", "_cured")).dropna()
    name = f"sensitivity with the cure ({without.label})"
    if both.empty:
        return Claim(
            name, f"Cannot tell LR sensitivity with and without: {without.label}.", None, {}
        )
    drop = both["sensitivity"] - both["sensitivity_cured"]
    half = ((both["high"] - both["low"]) / 2, (both["high_cured"] - both["low_cured"]) / 2)
    holds = _combine(_signs(drop, np.hypot(*half)))
    listed = _listed(
        f"{a:.3f} to {b:.3f} at size {size:g}"
        for size, a, b in both[["size", "sensitivity", "sensitivity_cured"]].itertuples(index=False)
    )
    word = {True: "lowers", False: "raises", None: "changes, within the seed noise,"}[holds]
    numbers = {f"size {s:g}": float(d) for s, d in zip(both["size"], drop, strict=True)}
    return Claim(name, f"{_cure(cured, without)} {word} LR sensitivity: {listed}.", holds, numbers)


def high_lr_claim(records: Records, without: Family, cured: Family) -> Claim:
    """Whether the cure lowers the final loss at the two highest learning rates, size by size."""
    left, right = (read_signal(f.trials, records.telemetry) for f in (without, cured))
    both = left.merge(right, on=["size", "lr", "seed"], suffixes=("", "_cured"))
    both = both.dropna(subset=["loss", "loss_cured"])
    name = f"loss at the two highest learning rates ({without.label})"
    if both.empty:
        text = (
            f"Cannot tell the loss at the highest learning rates with and without: {without.label}."
        )
        return Claim(name, text, None, {})
    top = both[both["lr"] >= np.sort(both["lr"].unique())[-2:][0]]
    means = top.groupby("size")[["loss", "loss_cured"]].mean()
    count = top.groupby("size").size()
    gain = means["loss"] - means["loss_cured"]
    margin = special.stdtrit(4, 0.95) * LOSS_SEED_SD * np.sqrt(2 / count)
    holds = _combine(_signs(gain, margin))
    listed = _listed(
        f"{row.loss:.2f} to {row.loss_cured:.2f} at size {size:g}" for size, row in means.iterrows()
    )
    word = {True: "lowers", False: "raises", None: "changes, within the seed noise,"}[holds]
    rates = " and ".join(f"{lr:g}" for lr in np.sort(top["lr"].unique()))
    text = (
        f"{_cure(cured, without)} {word} the final loss at learning rate {rates}: {listed} (nats)."
    )
    return Claim(name, text, holds, {f"size {s:g}": float(g) for s, g in gain.items()})


def size_claim(table: pd.DataFrame, family: Family) -> Claim:
    """Whether LR sensitivity rises with size, over the learning rates from the best one up."""
    own = (
        table[(table["family"] == family.label)].dropna(subset="high_side").sort_values("n_params")
    )
    name = f"sensitivity and size ({family.label})"
    if own["n_params"].nunique() < 2:
        text = f"Cannot tell whether LR sensitivity rises with size: {family.label} has one size."
        return Claim(name, text, None, {})
    rise = own["high_side"].iloc[-1] - own["high_side"].iloc[0]
    margin = ((own["high"] - own["low"]) / 2).iloc[[0, -1]].pow(2).sum() ** 0.5
    holds = _combine(_signs(pd.Series([rise]), pd.Series([margin])))
    listed = _listed(
        f"{h:.3f} at size {s:g}" for s, h in zip(own["size"], own["high_side"], strict=True)
    )
    word = {True: "rises", False: "falls", None: "does not clearly change"}[holds]
    text = (
        f"From the best learning rate up, LR sensitivity {word} with size in {family.label}: "
        f"{listed}."
    )
    return Claim(name, text, holds, {"rise": float(rise)})


AXES: Final = (
    ("lr", "the learning rate", "size", "size"),
    ("n_params", "the number of parameters", "lr", "learning rate"),
)


def _grows(cells: pd.DataFrame, family: Family, signal: str, x: str, along: str, by: str, at: str):
    """Whether the signal rises along one axis at each value of the other."""
    # A run that ended early only bounds its signal from below, so it can't be ranked.
    known = cells[~cells["censored"]].dropna(subset=["value"])
    ranks = {}
    for value, group in known.groupby(by):
        curve = np.log10(group["value"]).groupby(group[x]).mean()
        if len(curve) >= 3:
            ranks[value] = _rank_correlation(curve)
    name = f"{signal} and {along} ({family.label})"
    if not ranks:
        text = (
            f"Cannot tell whether {signal} grows with {along} in {family.label}: fewer than three "
        )
        return Claim(name, f"{text}points along it carry the signal.", None, {})
    rho = pd.Series(ranks)
    verdicts = [True if r >= RISES else (False if r <= 0 else None) for r in rho]
    holds = _combine(verdicts)
    word = {True: "grows", False: "does not grow", None: "does not clearly grow"}[holds]
    listed = _listed(f"{r:.2f} at {at} {value:g}" for value, r in ranks.items())
    text = f"{signal} {word} with {along} in {family.label}: rank correlation {listed}."
    return Claim(name, text, holds, {f"{at} {v:g}": float(r) for v, r in ranks.items()})


def _rank_correlation(curve: pd.Series) -> float:
    if curve.nunique() < 2:
        return 0.0
    return float(np.corrcoef(curve.index.to_series().rank(), curve.rank())[0, 1])


def slope_claim(law: CriticalLaw) -> Claim:
    """Whether the critical learning rate falls with the number of parameters."""
    name = "the law of the critical learning rate"
    if math.isnan(law.slope):
        return Claim(name, f"{law.status[0].upper()}{law.status[1:]}.", None, {})
    holds = True if law.slope_high < 0 else (False if law.slope_low > 0 else None)
    word = {True: "falls", False: "rises", None: "does not clearly change"}[holds]
    text = (
        f"The critical learning rate {word} with the number of parameters, as N to the power "
        f"{law.slope:.2f} ({law.level:.0%} interval {law.slope_low:.2f} to {law.slope_high:.2f})."
    )
    numbers = {"slope": law.slope, "low": law.slope_low, "high": law.slope_high}
    return Claim(name, text, holds, numbers)


def _signs(difference: pd.Series, margin: pd.Series) -> list[bool | None]:
    return [
        True if d > m else (False if d < -m else None)
        for d, m in zip(difference, margin, strict=True)
    ]


def _combine(verdicts: list[bool | None]) -> bool | None:
    """True if at least half say so and none the opposite; the same for False; else None."""
    for answer in (True, False):
        agree = sum(verdict is answer for verdict in verdicts)
        if verdicts and 2 * agree >= len(verdicts) and (not answer) not in verdicts:
            return answer
    return None


def _cure(cured: Family, without: Family) -> str:
    """The one factor in which the families differ, as a subject."""
    changed = [n for n, v in cured.values.items() if without.values.get(n) != v]
    kept = ", ".join(f"{n}={v}" for n, v in cured.values.items() if n not in changed)
    return f"{', '.join(changed)}=true{f' (at {kept})' if kept else ''}"


def _listed(parts) -> str:
    return ", ".join(parts)
