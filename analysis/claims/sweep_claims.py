"""What a sweep shows, as sentences computed from its data: they say the opposite if it does.

A claim about several sizes (or curves) holds where at least three quarters of them show it, each by
itself beyond its noise, and none shows the opposite. Of three sizes that takes all three.
"""

import math
from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from foretune.analysis.claims.claim import LOSS_SEED_SD, Claim
from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.measures.sensitivity import sensitivity_table
from foretune.analysis.measures.signal import SIGNAL, absence, read_signal
from foretune.analysis.records.families import FIX_OF_SIGNAL, Family, factors, families, twin_of
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict

RISES: Final = 0.8
"""Rank correlation from which a curve counts as rising."""
SHARE: Final = 0.75
"""Share of the sizes or curves that must show a claim."""
UNCLEAR: Final = "does not clearly change"
RULE: Final = "a verdict takes three quarters, and none the other way"

LOWERS: Final = ("lowers", "raises", UNCLEAR)
"""What a cure does where the claim holds, fails and cannot be decided."""


def claims(
    records: Records, law: CriticalLaw, *, signal: str = SIGNAL, level: float = 0.9
) -> list[Claim]:
    """Every claim about a sweep: of each pair without and with the cure, of the signal, of the law.

    `law` is the fitted law of the critical learning rate of the family in question. Nothing is said
    of a cure that doesn't vary, nor of a signal that no run recorded.
    """
    every = list(families(records.trials))
    pairs = [(f, twin) for f in every if (twin := twin_of(f, every, signal)) is not None]
    table = sensitivity_table(records.trials, level=level)
    found = []
    for without, cured in pairs:
        found += [sensitivity_claim(table, without, cured), high_lr_claim(records, without, cured)]
    fix = FIX_OF_SIGNAL.get(signal, "")
    if not pairs and fix in factors(records.trials):
        text = f"Cannot tell what {fix} changes: no two families differ in it alone."
        found.append(Claim("the cure", text, Verdict.CANNOT_TELL, {}))
    bare = [f for f in every if not f.values.get(fix, False) and len(f.trials) >= 2]
    absent = {f.label: absence(f.trials, records.telemetry, signal) for f in every}
    for family in bare:
        found.append(size_claim(table, family))
        if not absent[family.label]:
            cells = read_signal(family.trials, records.telemetry, signal=signal)
            found += [_grows(cells, family, signal, *axes) for axes in AXES]
    return found if absent and all(absent.values()) else [*found, slope_claim(law)]


def sensitivity_claim(table: pd.DataFrame, without: Family, cured: Family) -> Claim:
    """Whether the cure lowers LR sensitivity, size by size (see `_combine`)."""
    columns = ["size", "sensitivity", "low", "high"]
    left, right = (table[table["family"] == f.label][columns] for f in (without, cured))
    both = left.merge(right, on="size", suffixes=("", "_cured")).dropna()
    name = f"sensitivity with the cure ({without.label})"
    if both.empty:
        return Claim(
            name,
            f"Cannot tell LR sensitivity with and without: {without.label}.",
            Verdict.CANNOT_TELL,
            {},
        )
    drop = both["sensitivity"] - both["sensitivity_cured"]
    half = ((both["high"] - both["low"]) / 2, (both["high_cured"] - both["low_cured"]) / 2)
    signs = _signs(drop, np.hypot(*half))
    verdict = _combine(signs)
    listed = _listed(
        f"{a:.3f} to {b:.3f} at size {size:g}"
        for size, a, b in both[["size", "sensitivity", "sensitivity_cured"]].itertuples(index=False)
    )
    numbers = {f"size {s:g}": float(d) for s, d in zip(both["size"], drop, strict=True)}
    does = f"{_cure(cured, without)} {verdict.choose(*LOWERS)}"
    text = f"{does} LR sensitivity: {listed} ({_tally(signs)})."
    return Claim(name, text, verdict, numbers)


def high_lr_claim(records: Records, without: Family, cured: Family) -> Claim:
    """Whether the cure lowers the final loss at the two highest learning rates.

    It does at a size where the mean falls by more than the noise between seeds (`LOSS_SEED_SD`).
    """
    left, right = (read_signal(f.trials, records.telemetry) for f in (without, cured))
    both = left.merge(right, on=["size", "lr", "seed"], suffixes=("", "_cured"))
    both = both.dropna(subset=["loss", "loss_cured"])
    name = f"loss at the two highest learning rates ({without.label})"
    if both.empty:
        text = (
            f"Cannot tell the loss at the highest learning rates with and without: {without.label}."
        )
        return Claim(name, text, Verdict.CANNOT_TELL, {})
    top = both[both["lr"] >= np.sort(both["lr"].unique())[-2:][0]]
    means = top.groupby("size")[["loss", "loss_cured"]].mean()
    count = top.groupby("size").size()
    gain = means["loss"] - means["loss_cured"]
    margin = special.stdtrit(4, 0.95) * LOSS_SEED_SD * np.sqrt(2 / count)
    signs = _signs(gain, margin)
    verdict = _combine(signs)
    listed = _listed(
        f"{row.loss:.2f} to {row.loss_cured:.2f} at size {size:g}" for size, row in means.iterrows()
    )
    rates = " and ".join(f"{lr:g}" for lr in np.sort(top["lr"].unique()))
    does = f"{_cure(cured, without)} {verdict.choose(*LOWERS)}"
    text = f"{does} the final loss (nats) at learning rate {rates}: {listed} ({_tally(signs)})."
    return Claim(name, text, verdict, {f"size {s:g}": float(g) for s, g in gain.items()})


def size_claim(table: pd.DataFrame, family: Family) -> Claim:
    """Whether LR sensitivity rises with size, over the learning rates from the best one up.

    It does where the largest size's exceeds the smallest's by more than their intervals. A size
    whose best learning rate is the highest of its grid has no such side and is left out.
    """
    own = table[table["family"] == family.label].sort_values("n_params")
    known, left_out = own.dropna(subset="high_side"), _no_high_side(own)
    name = f"sensitivity and size ({family.label})"
    if known["n_params"].nunique() < 2:
        why = left_out if own["n_params"].nunique() >= 2 else "only one size was run"
        text = f"Cannot tell whether LR sensitivity rises with size in {family.label}: {why}."
        return Claim(name, text, Verdict.CANNOT_TELL, {})
    rise = known["high_side"].iloc[-1] - known["high_side"].iloc[0]
    margin = ((known["high"] - known["low"]) / 2).iloc[[0, -1]].pow(2).sum() ** 0.5
    verdict = _combine(_signs(pd.Series([rise]), pd.Series([margin])))
    listed = _listed(
        f"{h:.3f} at size {s:g}" for s, h in zip(known["size"], known["high_side"], strict=True)
    )
    word = verdict.choose("rises", "falls", UNCLEAR)
    text = (
        f"From the best learning rate up, LR sensitivity {word} with size in {family.label}: "
        f"{listed}{f'; {left_out}' if left_out else ''} (from first to last {rise:+.3f}, "
        f"noise {margin:.3f})."
    )
    return Claim(name, text, verdict, {"rise": float(rise)})


def _no_high_side(own: pd.DataFrame) -> str:
    """Why sizes have no learning rates above their best one; empty where all have."""
    lacking = own[own["high_side"].isna()]
    at_edge = lacking[lacking["sensitivity"].notna()]
    pairs = zip(at_edge["size"], at_edge["best_lr"], strict=True)
    where = _listed(f"size {size:g} ({lr:g})" for size, lr in pairs)
    parts = [f"the best learning rate is the highest of the grid at {where}"] if where else []
    few = _listed(f"size {size:g}" for size in lacking["size"][lacking["sensitivity"].isna()])
    parts += [f"fewer than two learning rates were run at {few}"] if few else []
    parts += ["widen the grid upwards"] if where else []
    return "; ".join(parts)


AXES: Final = (
    ("lr", "the learning rate", "size", "size"),
    ("n_params", "the number of parameters", "lr", "learning rate"),
)


def _grows(cells: pd.DataFrame, family: Family, signal: str, x: str, along: str, by: str, at: str):
    """Whether the signal rises along one axis, on three quarters of the curves, and falls on none.

    A curve holds the other axis fixed and has three points or more. It rises with a rank
    correlation of `RISES`, and doesn't with one of 0 or less.
    """
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
        return Claim(name, f"{text}points along it carry the signal.", Verdict.CANNOT_TELL, {})
    rho = pd.Series(ranks)
    verdicts = [Verdict.of(r >= RISES, r <= 0) for r in rho]
    verdict = _combine(verdicts)
    word = verdict.choose("grows", "does not grow", "does not clearly grow")
    listed = _listed(f"{r:.2f} at {at} {value:g}" for value, r in ranks.items())
    tally = _tally(verdicts, f"{RISES:g} or more", "0 or less", "curves")
    text = f"{signal} {word} with {along} in {family.label}: rank correlation {listed} ({tally})."
    return Claim(name, text, verdict, {f"{at} {v:g}": float(r) for v, r in ranks.items()})


def _rank_correlation(curve: pd.Series) -> float:
    if curve.nunique() < 2:
        return 0.0
    return float(np.corrcoef(curve.index.to_series().rank(), curve.rank())[0, 1])


def slope_claim(law: CriticalLaw) -> Claim:
    """Whether the critical learning rate falls with the number of parameters."""
    name = "the law of the critical learning rate"
    if math.isnan(law.slope):
        text = f"{law.status[0].upper()}{law.status[1:]}."
        return Claim(name, text, Verdict.CANNOT_TELL, {})
    verdict = Verdict.of(law.slope_high < 0, law.slope_low > 0)
    word = verdict.choose("falls", "rises", UNCLEAR)
    text = (
        f"The critical learning rate {word} with the number of parameters, as N to the power "
        f"{law.slope:.2f} ({law.level:.0%} interval {law.slope_low:.2f} to {law.slope_high:.2f})."
    )
    numbers = {"slope": law.slope, "low": law.slope_low, "high": law.slope_high}
    return Claim(name, text, verdict, numbers)


def _signs(difference: pd.Series, margin: pd.Series) -> list[Verdict]:
    return [Verdict.of(d > m, d < -m) for d, m in zip(difference, margin, strict=True)]


def _combine(verdicts: list[Verdict]) -> Verdict:
    """Holds if at least `SHARE` do and none fails, fails likewise; else it cannot be decided."""
    yes, no = _counts(verdicts)
    enough = SHARE * max(1, len(verdicts))
    return Verdict.of(yes >= enough and not no, no >= enough and not yes)


def _counts(verdicts: list[Verdict]) -> tuple[int, int]:
    return verdicts.count(Verdict.HOLDS), verdicts.count(Verdict.FAILS)


def _tally(
    verdicts: list[Verdict],
    up: str = "lower beyond the noise",
    down: str = "higher",
    of: str = "sizes",
) -> str:
    """How many verdicts say what, and the rule that makes one of them."""
    yes, no = _counts(verdicts)
    return f"{up} at {yes} of {len(verdicts)} {of}, {down} at {no}; {RULE}"


def _cure(cured: Family, without: Family) -> str:
    """The one factor in which the families differ, as a subject."""
    changed = [n for n, v in cured.values.items() if without.values.get(n) != v]
    kept = ", ".join(f"{n}={v}" for n, v in cured.values.items() if n not in changed)
    return f"{', '.join(changed)}=true{f' (at {kept})' if kept else ''}"


def _listed(parts) -> str:
    return ", ".join(parts)
