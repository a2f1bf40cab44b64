"""What forecasts the critical learning rate of a size that was not fitted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pandas as pd

from foretune.analysis.across_scale.cells import loss_crossings, signal_crossings
from foretune.analysis.laws.critical_law import LOSS_PRIOR, fit_critical_lr
from foretune.analysis.laws.laws import Estimate, Law
from foretune.analysis.laws.surface_crossing import SurfaceCrossing
from foretune.analysis.measures.crossing import critical_lr, excess_crossing
from foretune.analysis.measures.excess import DEGRADED, UNSTABLE
from foretune.analysis.stats.status import Status

LINE_SD: Final = 0.2
"""How well the signal that goes with a loss is known at another size, dex."""
SURFACES: Final = ("varying-coefficient", "sliding", "averaged")
"""Forms of the signal whose own crossing is scored as well."""
SIGNAL: Final = "signal"
"""The quantity that crosses the danger line; the others are losses."""
EXCESSES: Final = {f"loss {line:.2f}": line for line in (DEGRADED, UNSTABLE)}
"""Quantities that cross an excess."""
BEFORE: Final = "same as before"


class Forecaster(Protocol):
    """A law of a critical learning rate."""

    def predict(self, n_params: float, level: float = 0.9) -> Estimate:
        """The critical learning rate at a size, with its interval."""
        ...

    def probability_unstable(self, n_params: float, lr: float) -> float:
        """Probability that it lies below `lr`; NaN if it cannot tell."""
        ...


@dataclass(frozen=True, slots=True)
class SameAsBefore:
    """The baseline that expects of every size what the largest fitted one did."""

    critical_lr: float

    def predict(self, n_params: float, level: float = 0.9) -> Estimate:
        """The critical learning rate of the largest fitted size, without an interval."""
        known = math.isfinite(self.critical_lr)
        status = Status.ok("as at the largest fitted size")
        if not known:
            status = Status.cannot_tell("it did not cross")
        return Estimate(self.critical_lr, math.nan, math.nan, status)

    def probability_unstable(self, n_params: float, lr: float) -> float:
        """1 above that learning rate, 0 below; NaN without one."""
        return float(lr > self.critical_lr) if math.isfinite(self.critical_lr) else math.nan


def critical_forecasters(
    fitted: pd.DataFrame, laws: Mapping[str, Law], threshold: float
) -> dict[tuple[str, str], Forecaster]:
    """Every law of a critical learning rate from `scored_cells`, by quantity and method.

    Methods: `law` through each size's own crossing; `... surface`, the crossing of a fitted signal,
    for a loss at the signal that went with it at the largest fitted size; `same as before`.
    """
    largest = fitted[fitted["n_params"] == fitted["n_params"].max()]
    surfaces = {form: laws[form] for form in SURFACES if form in laws}
    before = critical_lr(largest, threshold=threshold, smooth=True).value
    found: dict[tuple[str, str], Forecaster] = {
        (SIGNAL, "law"): fit_critical_lr(signal_crossings(fitted, threshold)),
        (SIGNAL, BEFORE): SameAsBefore(before),
    }
    for form, law in surfaces.items():
        found[SIGNAL, f"{form} surface"] = SurfaceCrossing(law, threshold)
    for quantity, excess in EXCESSES.items():
        suffering = excess_crossing(largest, excess).value
        found[quantity, "law"] = fit_critical_lr(loss_crossings(fitted, excess), prior=LOSS_PRIOR)
        found[quantity, BEFORE] = SameAsBefore(suffering)
        line = signal_at(largest, suffering)
        for form, law in surfaces.items() if math.isfinite(line) else ():
            found[quantity, f"{form} surface"] = SurfaceCrossing(law, line, LINE_SD)
    return found


def signal_at(cells: pd.DataFrame, lr: float) -> float:
    """Mean signal of one size at a learning rate, between the grid's; NaN beyond it."""
    logs = np.log10(cells["value"]).groupby(cells["lr"]).mean()
    rates = np.log10(logs.index.to_numpy(float))
    if not (math.isfinite(lr) and rates[0] <= math.log10(lr) <= rates[-1]):
        return math.nan
    return float(10 ** np.interp(math.log10(lr), rates, logs.to_numpy(float)))
