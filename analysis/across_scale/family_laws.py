"""Which family of a sweep a forecast is about, its danger line, and its laws."""

import math
from dataclasses import replace
from typing import Literal

import pandas as pd

from foretune.analysis.across_scale.arguments import check_question
from foretune.analysis.laws.critical_law import CriticalLaw, fit_critical_lr
from foretune.analysis.measures.critical_lr import critical_table
from foretune.analysis.measures.crossing import Where
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.signal import CELL, SIGNAL, absence, read_signal
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT, Threshold, calibrate
from foretune.analysis.records.families import FIX_OF_SIGNAL, Family, families
from foretune.analysis.records.load import Records
from foretune.analysis.stats.status import Status


def danger_line(
    records: Records, threshold: float | Literal["auto"], signal: str = SIGNAL
) -> Threshold:
    """The threshold as given; for `auto`, calibrated on the records' runs without the cure."""
    check_question(threshold=threshold)
    if threshold != "auto":
        threshold = float(threshold)
        if signal == SIGNAL and threshold == ATTENTION_LOGIT.value:
            return ATTENTION_LOGIT
        nan, text = math.nan, f"{threshold:g} as given"
        return Threshold(threshold, nan, nan, 0, 0, Status.ok(text), text, "as given")
    cells = [
        read_signal(family.trials, records.telemetry, signal=signal).assign(family=family.label)
        for family in families(records.trials)
        if not family.values.get(FIX_OF_SIGNAL.get(signal, ""), False)
    ]
    columns = [*CELL, "family"]
    return calibrate(pd.concat(cells, ignore_index=True) if cells else _no_cells(columns))


def _no_cells(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})


def choose_family(
    records: Records, table: pd.DataFrame | None, label: str | None, signal: str = SIGNAL
) -> Family | None:
    """The family with this label; by default the one without the cure that crosses most often."""
    every = list(families(records.trials))
    if label is not None:
        named = [family for family in every if family.label == label]
        if not named:
            raise ValueError(
                f"family must be one of {'; '.join(f.label for f in every) or 'none yet'}, got "
                f"{label!r}; choose one."
            )
        return named[0]
    if not every:
        return None
    crossed: dict[str, int] = {}
    if table is not None and len(table):
        sizes = table[table["status"] == Where.CROSSED].groupby("family")["n_params"].nunique()
        crossed = {str(name): int(count) for name, count in sizes.items()}
    fix = FIX_OF_SIGNAL.get(signal, "")
    return max(every, key=lambda f: (not f.values.get(fix, False), crossed.get(f.label, 0)))


def absence_of(records: Records, family: Family | None, signal: str = SIGNAL) -> str:
    """Why a family has no critical learning rate of this kind; empty where it may have one."""
    return "" if family is None else absence(family.trials, records.telemetry, signal)


def law_of(
    table: pd.DataFrame | None, family: Family | None, level: float, *, absent: str = ""
) -> CriticalLaw:
    """The law of one family's critical learning rate, from a `critical_table`.

    `absent` is why there can be none (`absence_of`), which then is the law's status.
    """
    law = fit_critical_lr(_own(table, family), level=level)
    return replace(law, status=Status.cannot_tell(absent)) if absent else law


def loss_law_of(
    table: pd.DataFrame | None, family: Family | None, level: float
) -> tuple[CriticalLaw, str]:
    """The law of the learning rate at which one family's loss suffers, and against what."""
    own = _own(table, family)
    kind = "penalty" if (own["penalty_status"] != Where.CANNOT_TELL).any() else "excess"
    about = {"penalty": "above the twin with the cure", "excess": "above the best of its curve"}
    names = {f"{kind}_lr": "critical_lr", f"{kind}_low": "low", f"{kind}_high": "high"}
    loss = own[["n_params", *names]].rename(columns=names)
    return fit_critical_lr(loss, level=level), f"loss {WORTH:g} nats {about[kind]}"


def _own(table: pd.DataFrame | None, family: Family | None) -> pd.DataFrame:
    if table is None or family is None:
        return critical_table(pd.DataFrame(), pd.DataFrame(), threshold=1.0)
    return table[table["family"] == family.label]
