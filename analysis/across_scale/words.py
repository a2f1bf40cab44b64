"""A prediction in words: why it is what it is, and where it holds."""

import math

from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.laws.laws import Estimate
from foretune.analysis.measures.thresholds import Threshold
from foretune.analysis.records.families import Family, held_constant


def why_unknown(critical: Estimate, line: Threshold, absent: str) -> str:
    """Why there is no critical learning rate; empty where there is one."""
    if math.isfinite(critical.median):
        return ""
    return line.status if math.isnan(line.value) and not absent else critical.status


def reason_of(
    critical: Estimate,
    law: CriticalLaw,
    line: Threshold,
    signal: str,
    lr: float | None,
    probability: float | None,
    level: float,
) -> str:
    trend = f"{'falls' if law.slope < 0 else 'rises'} as N to the power {law.slope:.2f}"
    text = (
        f"{signal} is expected to reach {line.value:g} at a learning rate of {critical.median:.3g} "
        f"({level:.0%} interval {critical.low:.3g} to {critical.high:.3g}), which "
        f"{trend} ({law.slope_low:.2f} to {law.slope_high:.2f})"
    )
    if lr is not None and probability is not None:
        text += f"; at {lr:g} the run is unstable with probability {_likely(probability)}"
    return f"{text}; {critical.status}"


def _likely(probability: float) -> str:
    """A probability to two digits that never claims certainty."""
    if probability < 0.01:
        return "below 0.01"
    return "above 0.99" if probability > 0.99 else f"{probability:.2f}"


def horizon_of(law: CriticalLaw, family: Family | None, line: Threshold, absent: str) -> str:
    setting = {} if family is None else held_constant(family.trials)
    where = "".join(f"; {name} {value}" for name, value in setting.items())
    danger = "" if absent else f"; danger line from {line.horizon}"
    return f"{law.horizon}{where}{danger}"
