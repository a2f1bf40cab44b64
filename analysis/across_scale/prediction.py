"""Will a setting be unstable at a size that was never run?"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from foretune.analysis.across_scale.arguments import check_question
from foretune.analysis.across_scale.family_laws import (
    absence_of,
    choose_family,
    danger_line,
    law_of,
    loss_law_of,
)
from foretune.analysis.across_scale.outlook import Outlook, outlooks
from foretune.analysis.across_scale.words import horizon_of, reason_of, why_unknown
from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.laws.laws import Estimate
from foretune.analysis.measures.critical_lr import critical_table
from foretune.analysis.measures.crossing import READ_WINDOW
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.records.families import Family, held_constant
from foretune.analysis.records.load import Records, load
from foretune.analysis.stats.status import Status, Trust

Source = Records | str | os.PathLike[str]


class Stability(StrEnum):
    """The verdict on one learning rate."""

    STABLE = "stable"
    """It lies below the whole interval of the critical one."""
    UNSTABLE = "unstable"
    """It lies above it."""
    CANNOT_TELL = Trust.CANNOT_TELL.value
    """It lies inside, or there is no law."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The critical learning rate forecast for one size, and the verdict on one learning rate.

    Learning rates are per update; intervals hold `level` of single runs. `verdict` is None where no
    learning rate was asked about.
    """

    size: float | None
    n_params: float
    family: str
    family_values: dict[str, Any]
    held_constant: dict[str, Any]
    """What all the runs shared, as far as it limits the horizon."""
    signal: str
    threshold: float
    window: tuple[float, float]
    """Share of the steps over which the signal is read."""
    level: float
    critical_lr: float
    low: float
    high: float
    slope: float
    """Dex of critical learning rate per decade of N."""
    slope_low: float
    slope_high: float
    loss_critical_lr: float
    """Where the loss suffers by `WORTH` nats, against the twin where there is one."""
    loss_low: float
    loss_high: float
    loss_kind: str
    lr: float | None
    probability: float | None
    """That the run is unstable at `lr`."""
    verdict: Stability | None
    status: Status
    reason: str
    horizon: str
    prior: str
    outlook: dict[str, Any]
    """What `analysis.across_scale.outlook` adds: best_lr, degraded_lr, unstable_lr (each with
    median, low, high, status), and the clauses decay, first, fix. Empty without a family."""

    def to_json(self) -> str:
        """The prediction as JSON, with null for what isn't a finite number."""
        values = {name: _jsonable(value) for name, value in asdict(self).items()}
        return json.dumps(values, indent=2, allow_nan=False)


def read_prediction(path: str | os.PathLike[str]) -> Prediction:
    """The prediction that `Prediction.to_json` wrote to a file."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"A prediction must be a JSON file that `foretune predict --json` wrote, got {path} "
            f"({error}); write it again."
        ) from None
    names = [field.name for field in fields(Prediction)]
    missing = sorted(set(names) - set(values)) if isinstance(values, dict) else names
    if missing:
        raise ValueError(
            f"A prediction must have every field that `foretune predict --json` writes, got {path} "
            f"without {', '.join(missing)}; write it again."
        )
    may_be_none = ("size", "lr", "probability", "verdict")
    plain: dict[str, Any] = {
        name: math.nan if values[name] is None and name not in may_be_none else values[name]
        for name in names
    }
    start, end = plain.pop("window")
    verdict, status = plain.pop("verdict"), Status(plain.pop("status"))
    verdict = None if verdict is None else Stability(verdict)
    return Prediction(**plain, window=(start, end), verdict=verdict, status=status)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def predict(
    source: Source,
    *,
    n_params: float,
    size: float | None = None,
    lr: float | None = None,
    threshold: float | Literal["auto"] = ATTENTION_LOGIT.value,
    family: str | None = None,
    signal: str = SIGNAL,
    window: tuple[float, float] = READ_WINDOW,
    level: float = 0.9,
) -> Prediction:
    """The critical learning rate at a size that need not have been run.

    `source` is a sweep's records or directory. `threshold` is the signal's danger line, `auto` to
    calibrate it on these runs. `family` names the runs to extrapolate (a label from
    `sensitivity_table`); by default the family without the cure whose signal crosses the line at
    most sizes. `n_params` counts parameters without embedding and head. Raises ValueError for an
    argument that asks for nothing, before anything is read.
    """
    check_question(size=size, n_params=n_params, lr=lr, threshold=threshold, level=level)
    at = predictor(source, threshold=threshold, signal=signal, window=window, level=level)
    return at(n_params, size=size, lr=lr, family=family)


class Predictor(Protocol):
    """`predict` for one run after another: what it knows of a family is fitted once."""

    def __call__(
        self,
        n_params: float,
        *,
        size: float | None = None,
        lr: float | None = None,
        family: str | None = None,
    ) -> Prediction: ...


@dataclass(frozen=True, slots=True)
class _Laws:
    """What a family's runs say of any size."""

    family: Family | None
    absent: str
    law: CriticalLaw
    loss_law: CriticalLaw
    loss_kind: str
    outlook: Callable[[float], Outlook] | None


def predictor(
    source: Source,
    *,
    threshold: float | Literal["auto"] = ATTENTION_LOGIT.value,
    signal: str = SIGNAL,
    window: tuple[float, float] = READ_WINDOW,
    level: float = 0.9,
) -> Predictor:
    """Returns a function of size, learning rate and family; arguments as `predict` has them."""
    check_question(threshold=threshold, level=level)
    records = source if isinstance(source, Records) else load(source)
    line = danger_line(records, threshold, signal)
    table = None
    if math.isfinite(line.value):
        table = critical_table(
            records.trials, records.telemetry, threshold=line.value, signal=signal, window=window
        )

    @cache
    def laws_of(label: str | None) -> _Laws:
        family = choose_family(records, table, label, signal)
        absent = absence_of(records, family, signal)
        law = law_of(table, family, level, absent=absent)
        ahead = None
        if family is not None and not absent:
            ahead = outlooks(records.trials, records.telemetry, family, level)
        return _Laws(family, absent, law, *loss_law_of(table, family, level), ahead)

    def at(
        n_params: float,
        *,
        size: float | None = None,
        lr: float | None = None,
        family: str | None = None,
    ) -> Prediction:
        check_question(size=size, n_params=n_params, lr=lr)
        found = laws_of(family)
        chosen, law = found.family, found.law
        critical = law.predict(n_params, level)
        suffering = found.loss_law.predict(n_params, level)
        probability, verdict = _verdict(law, critical, n_params, lr)
        return Prediction(
            size=size,
            n_params=float(n_params),
            family=chosen.label if chosen else "",
            family_values=chosen.values if chosen else {},
            held_constant=held_constant(chosen.trials) if chosen else {},
            signal=signal,
            threshold=line.value,
            window=window,
            level=level,
            critical_lr=critical.median,
            low=critical.low,
            high=critical.high,
            slope=law.slope,
            slope_low=law.slope_low,
            slope_high=law.slope_high,
            loss_critical_lr=suffering.median,
            loss_low=suffering.low,
            loss_high=suffering.high,
            loss_kind=found.loss_kind,
            lr=lr,
            probability=probability,
            verdict=verdict,
            status=critical.status,
            reason=why_unknown(critical, line, found.absent)
            or reason_of(critical, law, line, signal, lr, probability, level),
            horizon=horizon_of(law, chosen, line, found.absent),
            prior=law.prior,
            outlook={} if found.outlook is None else asdict(found.outlook(n_params)),
        )

    return at


def _verdict(
    law: CriticalLaw, critical: Estimate, n_params: float, lr: float | None
) -> tuple[float | None, Stability | None]:
    if lr is None:
        return None, None
    if not math.isfinite(critical.median):
        return None, Stability.CANNOT_TELL
    probability = law.probability_unstable(n_params, lr)
    if lr > critical.high:
        return probability, Stability.UNSTABLE
    below = lr < critical.low
    return probability, Stability.STABLE if below else Stability.CANNOT_TELL
