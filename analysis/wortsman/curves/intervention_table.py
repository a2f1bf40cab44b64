"""Every intervention against a baseline: LR sensitivity, best loss, largest logit; and a default.

Sensitivity alone misleads (a model at chance has none; Wortsman et al., appendix B), so it stands
beside the best loss, and nothing is recommended that pays for stability with loss.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import LEVEL, Interval, pooled, unknown
from foretune.analysis.claims.words import cannot_tell, plural
from foretune.analysis.measures.signal import SIGNAL, read_signal
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.curves.curves import MEASURES, Curve, curves, high_side, whole
from foretune.analysis.wortsman.curves.intervention_figure import intervention_figure
from foretune.analysis.wortsman.curves.questions import paired
from foretune.analysis.wortsman.runs import Runs, Variants, gather

DIFFERENCES: Final = ("sensitivity", "best_loss", "high_loss")
RULE: Final = (
    "the lowest LR sensitivity among those whose best loss is not above the baseline's by more "
    "than the noise between seeds"
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The intervention that a rule picks as the default."""

    label: str
    """Empty where none can be picked."""
    rule: str
    reason: str
    """A sentence with its numbers."""


def interventions(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    baseline: str = "none",
    incomparable: Collection[str] = (),
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """The table of interventions, which of them lower sensitivity at no loss, and the default.

    `incomparable` names interventions that change what a learning rate means: they are shown, not
    judged. Runs are of one size; several sizes are averaged.
    """
    strangers = [label for label in (baseline, *incomparable) if label not in variants]
    if strangers:
        raise ValueError(
            f"baseline and incomparable must be among the variants, got {strangers[0]!r}; "
            f"there are {', '.join(variants)}"
        )
    runs = gather(records, variants, where=where)
    found = curves(runs)
    table = intervention_table(runs, found, baseline, incomparable)
    return Answer(
        table, _claims(table, baseline, runs.absent), intervention_figure(table, baseline)
    )


def intervention_table(
    runs: Runs, found: Sequence[Curve], baseline: str, incomparable: Collection[str] = ()
) -> pd.DataFrame:
    """One row per intervention that was run, the least sensitive against the baseline first.

    Losses in nats; `d_*` are differences to the baseline, paired by seed (`d_seeds` of them) at the
    learning rates of both, with `low` and `high`; `verdict` says which side of zero the
    sensitivity's lies on; `max_logit` is the geometric mean over seeds at the highest learning rate
    that the baseline ran as well, of the run's last quarter.
    """
    of = {v: [curve for curve in found if curve.variant == v] for v in runs.variants}
    logits = _logits(runs, {lr for curve in of[baseline] for lr in curve.lrs})
    rows = [
        _row(label, own, of[baseline], logits.get(label, math.nan))
        | {"comparable": label not in incomparable, "baseline": label == baseline}
        for label, own in of.items()
        if own
    ]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["intervention", "sensitivity"])
    change = table["d_sensitivity"].where(~table["baseline"], 0.0) if rows else table["sensitivity"]
    return table.iloc[change.argsort(kind="stable")].reset_index(drop=True)


def _row(label: str, own: Sequence[Curve], base: Sequence[Curve], logit: float) -> dict[str, Any]:
    results = [whole(curve) for curve in own]
    best = _interval(own, "best_loss")
    differences = {name: _difference(own, base, name) for name in DIFFERENCES}
    words = {-1: "lower", 1: "higher", 0: "no clear difference"}
    row: dict[str, Any] = {
        "intervention": label,
        "sensitivity": float(np.mean([r.value for r in results])),
        "low": float(np.mean([r.low for r in results])),
        "high": float(np.mean([r.high for r in results])),
        "high_side": float(np.mean([high_side(curve).mean() for curve in own])),
        "best_loss": best.value,
        "best_loss_low": best.low,
        "best_loss_high": best.high,
        "best_lr": 10 ** _interval(own, "best_lr").value,
        "high_loss": _interval(own, "high_loss").value,
        "max_logit": logit,
    }
    for name, part in differences.items():
        row |= {f"d_{name}": part.value, f"d_{name}_low": part.low, f"d_{name}_high": part.high}
    row["verdict"] = "baseline" if own is base else words[differences["sensitivity"].sign]
    counts = {"n_seeds": results[0].n_seeds, "n_lr": results[0].n_lr}
    return row | counts | {"d_seeds": differences["sensitivity"].n_seeds}


def _interval(own: Sequence[Curve], name: str) -> Interval:
    return pooled([MEASURES[name].of(curve) for curve in own], sd=MEASURES[name].sd)


def _difference(own: Sequence[Curve], base: Sequence[Curve], name: str) -> Interval:
    if own is base:
        return unknown("it is the baseline")
    measure = MEASURES[name]
    parts = paired(measure, own, base)
    return pooled(parts.values(), sd=measure.sd * math.sqrt(2))


def _logits(runs: Runs, lrs: set[float]) -> dict[str, float]:
    """Geometric mean of the largest attention logit at each variant's highest learning rate."""
    found = {}
    for variant in runs.variants:
        trials = runs.of(variant)
        trials = trials[trials["lr"].isin(lrs)] if lrs else trials
        top = trials[trials["lr"] == trials["lr"].max()]
        values = read_signal(top, runs.telemetry, signal=SIGNAL)["value"].dropna()
        if len(values):
            found[variant] = float(10 ** np.log10(values.clip(lower=1e-12)).mean())
    return found


def _claims(table: pd.DataFrame, baseline: str, absent: str) -> list[Claim]:
    name = "interventions that lower LR sensitivity at no loss"
    finding = "qk-layernorm, warm-up, z-loss and independent decay lower LR sensitivity"
    others = table[~table["baseline"]].dropna(subset=["d_sensitivity"]) if len(table) else table
    judged = others[others["comparable"]] if len(others) else others
    if judged.empty:
        why = absent or "no seed ran an intervention and the baseline over the same learning rates"
        return [cannot_tell(name, finding, why)]
    lower = judged[judged["verdict"] == "lower"]
    free = lower[lower["d_best_loss_low"] <= 0].sort_values("d_sensitivity")
    dear = lower[lower["d_best_loss_low"] > 0].sort_values("d_sensitivity")
    worse = judged[judged["verdict"] == "higher"].sort_values("d_sensitivity", ascending=False)
    text = (
        f"Source A: {finding}. Here, against {baseline}, {_named(free)} lower it at no clear cost "
        f"in best loss; {_named(dear)} lower it and raise the best loss; {_named(worse)} raise it; "
        f"of {len(judged)} intervals of {LEVEL:.0%} about {(1 - LEVEL) * len(judged):.0f} exclude "
        f"zero by chance (changes in nats; {plural(int(judged['d_seeds'].min()), 'seed')} or more)."
    )
    verdict = Verdict.of(len(free) > 0, len(judged) == len(worse) + len(dear))
    numbers = {f"d {row.intervention}": float(row.d_sensitivity) for row in judged.itertuples()}
    found = [Claim(name, text, verdict, numbers)]
    choice = recommended(table)
    picked = table[table["intervention"] == choice.label]
    surely = bool((picked["verdict"] == "lower").any())
    text = f"Rule: {choice.rule}. {choice.reason}"
    found.append(Claim("the default", text, Verdict.of(surely, False), {}))
    return [*found, cannot_tell("every intervention", "they compare", absent)] if absent else found


def _named(rows: pd.DataFrame) -> str:
    parts = [f"{row.intervention} ({row.d_sensitivity:+.3f})" for row in rows.itertuples()]
    return ", ".join(parts) or "none"


def recommended(table: pd.DataFrame) -> Recommendation:
    """The default that `RULE` picks from a table of interventions; label "" where it can't."""
    nothing = "No intervention was run beside the baseline with seeds in common."
    if table.empty or not table["baseline"].any():
        return Recommendation("", RULE, nothing)
    allowed = table["comparable"] & ~(table["d_best_loss_low"] > 0) & table["sensitivity"].notna()
    allowed &= table["d_best_loss"].notna() | table["baseline"]
    chosen = table[allowed]  # In the order of the table, by sensitivity.
    if len(chosen) < 2:
        return Recommendation("", RULE, nothing)
    best = chosen.iloc[0]
    label = str(best["intervention"])
    if best["baseline"]:
        why = f"{label} itself has the lowest, {best['sensitivity']:.3f} nats."
        return Recommendation(label, RULE, why)
    numbers = (
        f"LR sensitivity {best['d_sensitivity']:+.3f} nats against the baseline ({LEVEL:.0%} "
        f"interval {best['d_sensitivity_low']:+.3f} to {best['d_sensitivity_high']:+.3f}), best "
        f"loss {best['d_best_loss']:+.3f} "
        f"({best['d_best_loss_low']:+.3f} to {best['d_best_loss_high']:+.3f})"
    )
    return Recommendation(label, RULE, f"It picks {label}: {numbers}.")
