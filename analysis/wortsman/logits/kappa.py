"""Figure 10: attention logits forced up by kappa, what they cost, and how large they get.

q and k are replaced by sqrt(kappa) z / RMS(z) in every head. The paper's 10M model deteriorates
from kappa 1e3 on, and at 1e4 is worse than a bigram model. kappa bounds the largest logit by
kappa sqrt(head_dim), so the achieved one is read; and since every head is forced, where it hurts is
a lower bound of where natural runs suffer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import LOSS_SEED_SD, Claim
from foretune.analysis.claims.intervals import LEVEL, Interval, pooled, unknown
from foretune.analysis.claims.words import cannot_tell, claim, plural
from foretune.analysis.measures.crossing import CANNOT_TELL, Crossing, Where, excess_crossing
from foretune.analysis.measures.excess import DEGRADED, excess
from foretune.analysis.measures.signal import SIGNAL, read_signal
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.logits.kappa_figure import kappa_figure
from foretune.analysis.wortsman.runs import Runs, gather

KAPPA: Final = "model.kappa"
ONSET_SD: Final = 0.15
"""Prior standard deviation between seeds of the log10 kappa at which loss deteriorates, dex."""
PAPERS_ONSET: Final = 1e3
PAPERS_WORST: Final = 1e4


@dataclass(frozen=True, slots=True)
class Forced:
    """What kappa does to one architecture; numbers are of log10, over seeds."""

    label: str
    cells: pd.DataFrame
    """A row per run: kappa, seed, loss, reference_loss, logit (largest, of the last quarter)."""
    onset: Interval
    """log10 kappa at which the excess loss meets the level."""
    logit: Interval
    """log10 of the largest logit achieved there."""
    why: str
    """Why there is no onset."""
    never: bool = False
    """Whether no seed has one, though kappa went beyond the paper's."""


def forced_logits(
    records: Mapping[str, Records],
    *,
    natural_threshold: float | Mapping[str, float] = ATTENTION_LOGIT.value,
    bigram: float | Mapping[str, float] | None = None,
    level: float = DEGRADED,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """Where forced logits begin to hurt, per sweep; records by the architecture's name.

    The onset is where the loss has lost `level` of what there is to lose (reference loss minus the
    lowest loss over kappa). `natural_threshold` is the danger line calibrated on runs that grew
    their logits themselves, `bigram` the loss of a bigram model (nats); each for all sweeps or by
    name.
    """
    forced = [
        _forced(label, gather({label: own}, where=where), level) for label, own in records.items()
    ]
    claims = []
    for one in forced:
        claims += [
            _deteriorates(one, level),
            _against_natural(one, _of(natural_threshold, one.label)),
            _against_bigram(one, _of(bigram, one.label)),
        ]
    table = pd.concat([_table(one) for one in forced], ignore_index=True)
    lines = {one.label: _of(bigram, one.label) for one in forced}
    return Answer(table, claims, kappa_figure({one.label: one.cells for one in forced}, lines))


def _of(value: float | Mapping[str, float] | None, label: str) -> float | None:
    return value.get(label) if isinstance(value, Mapping) else value


def _forced(label: str, runs: Runs, level: float) -> Forced:
    cells = _cells(runs)
    onsets, logits, why, statuses = [], [], "", set()
    for _, own in cells.groupby("seed"):
        found = _crossing(own, level)
        why = why or _reason(own, found, level)
        statuses.add(found.status)
        if found.status is Where.CROSSED:
            onsets.append(math.log10(found.value))
            logits.append(_achieved(own, onsets[-1]))
    seeds = cells["seed"].nunique()
    if len(onsets) < seeds or not seeds:
        # A mean over those that crossed would hide the others.
        never = statuses == {Where.ABOVE} and cells["kappa"].max() >= PAPERS_ONSET
        why = why or "no run with kappa has ended"
        return Forced(label, cells, unknown(why), unknown(why), why, never)
    onset, logit = (pooled([values], sd=ONSET_SD) for values in (onsets, logits))
    return Forced(label, cells, onset, logit, "")


def _cells(runs: Runs) -> pd.DataFrame:
    trials = runs.trials
    if KAPPA not in trials:
        trials = trials.iloc[:0].assign(**{KAPPA: pd.Series(dtype=float)})
    logit = read_signal(trials, runs.telemetry, signal=SIGNAL)["value"].to_numpy(float)
    cells = pd.DataFrame(
        {
            "kappa": trials[KAPPA].to_numpy(float),
            "seed": trials["seed"].to_numpy(),
            "loss": trials["loss"].to_numpy(float),
            "reference_loss": trials["reference_loss"].to_numpy(float),
            "logit": logit,
        }
    )
    return cells[(cells["kappa"] > 0) & np.isfinite(cells["loss"])].reset_index(drop=True)


def _crossing(own: pd.DataFrame, level: float) -> Crossing:
    """`excess_crossing` along kappa instead of learning rates."""
    best, reference = own["loss"].min(), own["reference_loss"].min()
    if not (len(own) > 1 and reference > best):
        return CANNOT_TELL
    return excess_crossing(own.rename(columns={"kappa": "lr"}), level)


def _reason(own: pd.DataFrame, found: Crossing, level: float) -> str:
    if found.status is Where.CROSSED:
        return ""
    if found.status is Where.ABOVE:
        return (
            f"with some seed the loss never loses {level:.0%} of what there is to lose, up to "
            f"kappa {own['kappa'].max():g}"
        )
    if not own["reference_loss"].notna().any():
        return "the runs have no reference loss"
    return "with some seed the losses over kappa do not tell"


def _achieved(own: pd.DataFrame, log_kappa: float) -> float:
    """log10 of the largest logit at a kappa, between those that were run."""
    curve = own[own["logit"] > 0].groupby("kappa")["logit"].mean()
    if len(curve) < 2:
        return math.nan
    x, y = np.log10(curve.index.to_numpy(float)), np.log10(curve.to_numpy(float))
    return float(np.interp(log_kappa, x, y))


def _deteriorates(one: Forced, level: float) -> Claim:
    finding = f"forced logits hurt from kappa about {PAPERS_ONSET:g} on"
    name = f"where forced logits begin to hurt, {one.label}"
    if one.never:
        seeds = plural(one.cells["seed"].nunique(), "seed")
        top = one.cells["kappa"].max()
        text = f"Source A: {finding}. {Verdict.FAILS.here}: up to kappa {top:g} no onset in "
        text += f"{one.label}, where {level:.0%} of what there is to lose would be lost ({seeds})."
        return Claim(name, text, Verdict.FAILS, {})
    if not one.onset.known:
        return cannot_tell(name, finding, one.why)
    best = one.cells.groupby("kappa")["loss"].mean().min()
    lost = level * (one.cells["reference_loss"].mean() - best)
    noise = LOSS_SEED_SD * math.sqrt(2 / one.onset.n_seeds)
    verdict = Verdict.HOLDS if lost > noise else Verdict.CANNOT_TELL
    value, low, high = (10**x for x in (one.onset.value, one.onset.low, one.onset.high))
    times = max(value, PAPERS_ONSET) / min(value, PAPERS_ONSET)
    side = "below" if value < PAPERS_ONSET else "above"
    text = (
        f"Source A: {finding}. {verdict.here}: there is an onset in {one.label}: {level:.0%} of "
        f"what there is to lose ({lost:.3f} nats; a difference between seeds is {noise:.3f}) is "
        f"lost at kappa {value:.3g} ({LEVEL:.0%} interval {low:.3g} to {high:.3g}, "
        f"{plural(one.onset.n_seeds, 'seed')}), {times:.3g} times {side} the paper's "
        f"{PAPERS_ONSET:g}."
    )
    if one.logit.known:
        a, b, c = (10**x for x in (one.logit.value, one.logit.low, one.logit.high))
        text += f" The largest logit there is {a:.3g} ({b:.3g} to {c:.3g})."
    numbers = {"kappa": value, "low": low, "high": high}
    return Claim(name, text, verdict, numbers)


def _against_natural(one: Forced, threshold: float | None) -> Claim:
    name = f"forced against natural logits, {one.label}"
    finding = "forcing logits is a test of where they hurt that takes no sweep"
    if threshold is None or not one.logit.known:
        why = one.why or "no run recorded the largest logit"
        return cannot_tell(name, finding, why if threshold else "no natural threshold was given")
    shift = math.log10(threshold)
    found = Interval(
        one.logit.value - shift,
        one.logit.low - shift,
        one.logit.high - shift,
        one.logit.n_seeds,
        one.logit.n_sizes,
    )
    times, side = 10 ** abs(found.value), "smaller" if found.value < 0 else "larger"
    also = f"It hurts at {times:.3g} times {side} logits than the {threshold:g} of natural runs"
    what = f"log10 of the largest logit at the onset in {one.label} over the natural threshold"
    also += "; where it is smaller, the test is a lower bound, as every head is forced."
    return claim(name, finding, what, found, "lower", unit="decades", digits=2, also=also)


def _against_bigram(one: Forced, bigram: float | None) -> Claim:
    name = f"the largest kappa against a bigram model, {one.label}"
    finding = f"at kappa {PAPERS_WORST:g} the model is worse than a bigram model"
    if bigram is None or one.cells.empty:
        why = "no bigram loss was given" if bigram is None else "no run with kappa has ended"
        return cannot_tell(name, finding, why)
    top = one.cells[one.cells["kappa"] == one.cells["kappa"].max()]
    found = pooled([top["loss"].to_numpy(float) - bigram], sd=LOSS_SEED_SD)
    highest = top["kappa"].iloc[0]
    what = f"the loss of {one.label} at kappa {highest:g} minus the bigram's {bigram:.3f}"
    return claim(name, finding, what, found, "higher", unit="nats")


def _table(one: Forced) -> pd.DataFrame:
    """Per kappa: loss and excess, the logit and its ratio to kappa; the onset repeated."""
    cells = one.cells.assign(log=np.log10(one.cells["logit"].where(one.cells["logit"] > 0)))
    table = cells.groupby("kappa", as_index=False).agg(
        loss=("loss", "mean"),
        reference_loss=("reference_loss", "mean"),
        log=("log", "mean"),
        n_seeds=("seed", "nunique"),
    )
    best = table["loss"].min()
    gain = table["reference_loss"].where(table["reference_loss"] > best)
    table["excess"] = excess(table["loss"], best=best, reference=gain)
    table["largest_logit"] = 10 ** table.pop("log").astype(float)
    table["logit_over_kappa"] = table["largest_logit"] / table["kappa"]
    for name, found in (("onset_kappa", one.onset), ("onset_logit", one.logit)):
        table[name] = 10**found.value
        table[f"{name}_low"], table[f"{name}_high"] = 10**found.low, 10**found.high
    table.insert(0, "architecture", one.label)
    return table
