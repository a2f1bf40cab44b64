"""Everything that a sweep's page shows, computed once: tables, law, claims, forecasts, checks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from foretune.analysis.across_scale.arguments import check_question
from foretune.analysis.across_scale.family_laws import absence_of, choose_family, law_of
from foretune.analysis.across_scale.prediction import Prediction, predictor, read_prediction
from foretune.analysis.across_scale.verification import Verification, verify
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.format_summary import Formats, compare_formats
from foretune.analysis.claims.sweep_claims import claims
from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.measures.critical_lr import critical_table, window_check
from foretune.analysis.measures.sensitivity import sensitivity_table
from foretune.analysis.measures.signal import CELL, SIGNAL, read_signal
from foretune.analysis.records.families import FIX_OF_SIGNAL, LR, Family, factors, families
from foretune.analysis.records.load import Records

Check = tuple[str | os.PathLike[str], str | os.PathLike[str]]
FORECASTS: Final = (4.0, 16.0)
"""Multiples of the largest N for which a page forecasts."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the page shows, computed once from the records."""

    records: Records
    family: Family | None
    cells: pd.DataFrame
    """One row per ended run of every family, with a column `family`."""
    sensitivity: pd.DataFrame
    critical: pd.DataFrame
    windows: pd.DataFrame
    law: CriticalLaw
    claims: list[Claim]
    forecasts: list[Prediction]
    checks: list[tuple[Prediction, Verification]]
    threshold: float
    level: float
    absent: str
    """Why there is no critical learning rate of this kind, a clause; empty where there may be."""
    formats: Formats | None
    """The number formats compared; None where one was run."""


def find(records: Records, *, checks: Sequence[Check], level: float, threshold: float) -> Findings:
    """All tables, laws, claims and forecasts of a sweep."""
    check_question(threshold=threshold, level=level)
    trials, telemetry = records.trials, records.telemetry
    critical = critical_table(trials, telemetry, threshold=threshold)
    family = choose_family(records, critical, None)
    absent = absence_of(records, family)
    law = law_of(critical, family, level, absent=absent)
    sizes = [factor * law.largest for factor in FORECASTS if law.posterior is not None]
    forecasts = []
    if sizes:
        at = predictor(records, threshold=threshold, level=level)
        forecasts = [at(n_params) for n_params in sizes]
    made = [(read_prediction(path), runs) for path, runs in checks]
    cells = [read_signal(f.trials, telemetry).assign(family=f.label) for f in families(trials)]
    return Findings(
        records=records,
        family=family,
        cells=(
            pd.concat(cells, ignore_index=True)
            if cells
            else pd.DataFrame(columns=[*CELL, "family"])
        ),
        sensitivity=sensitivity_table(trials, level=level),
        critical=critical,
        windows=window_check(trials, telemetry, threshold=threshold),
        law=law,
        claims=claims(records, law, level=level),
        forecasts=forecasts,
        checks=[(prediction, verify(prediction, runs)) for prediction, runs in made],
        threshold=threshold,
        level=level,
        absent=absent,
        formats=compare_formats(trials),
    )


def headline(found: Findings) -> str:
    """What to take away, in a sentence; in two where number formats differ."""
    if found.checks:
        return " ".join(check.sentence for _, check in found.checks)
    parts = [] if found.formats is None else [found.formats.sentence]
    if found.forecasts:
        parts.append(_forecast(found))
    elif not parts:
        parts.append(_best_run(found))
    return " ".join(parts)


def _forecast(found: Findings) -> str:
    first, last = found.forecasts[0], found.forecasts[-1]
    return (
        f"Keep the learning rate of {first.family} below {first.low:.2g} at "
        f"{first.n_params:,.0f} parameters and below {last.low:.2g} at {last.n_params:,.0f}: "
        f"the critical learning rate changes as N to the power {found.law.slope:.2f}."
    )


def _best_run(found: Findings) -> str:
    best = found.sensitivity.dropna(subset=["best_loss"])
    if best.empty:
        return "Cannot tell anything yet: no run has ended with a validation loss."
    row = best.loc[best["best_loss"].idxmin()]
    why = "the critical learning rate is not known at two sizes"
    return (
        f"The best run so far ({row['family']}, size {row['size']:g}) reached "
        f"{row['best_loss']:.3f} nats at learning rate {row['best_lr']:g}; there is no forecast, "
        f"because {found.absent or why}."
    )


def missing(found: Findings) -> list[str]:
    """What the sweep lacks for the rest of the page, and the cure."""
    trials, out = found.records.trials, []
    ended = trials[trials["outcome"].isin(["finished", "diverged", "stopped"])]
    if ended.empty:
        return ["No run has ended yet, so there is nothing to judge: let the sweep go on."]
    if (trials["outcome"] == "unfinished").any():
        out.append("Some runs are unfinished: `foretune resume` continues them.")
    if (trials["outcome"] == "stopped").any():
        out.append(
            "Some runs were stopped early: their final loss is unknown and enters as bounds."
        )
    if LR not in trials or ended[LR].nunique() < 2:
        out.append("Only one learning rate was run: sensitivity and crossings need several.")
    if ended["size"].nunique() < 2:
        out.append("Only one size was run: a law over sizes needs two or more, better three.")
    if found.absent:
        out.append(f"{found.absent[0].upper()}{found.absent[1:]}.")
    elif found.law.posterior is None:
        out.append(f"{found.law.status[0].upper()}{found.law.status[1:]}.")
    if "seed" in trials and ended["seed"].nunique() < 2:
        out.append("One seed was run: intervals rest on a prior for the noise between seeds.")
    fix = FIX_OF_SIGNAL[SIGNAL]
    if fix in trials and fix not in factors(trials) and found.formats is None and not found.absent:
        out.append("No twin with qk-layernorm was run, so its effect is unknown.")
    return out
