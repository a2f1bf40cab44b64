"""The critical learning rate read off a law of the signal, instead of through each size's own."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from foretune.analysis.laws.laws import Estimate, Law
from foretune.analysis.stats.status import Status

POINTS: Final = 81
"""Learning rates at which the signal is asked for."""


@dataclass(frozen=True, slots=True)
class SurfaceCrossing:
    """Where a fitted signal meets a threshold that itself is known to within `threshold_sd` dex.

    A run is past its critical learning rate where its signal is past the threshold, so the
    probability of one is that of the other, made monotone in the learning rate.
    """

    law: Law
    threshold: float
    threshold_sd: float = 0.0

    def predict(self, n_params: float, level: float = 0.9) -> Estimate:
        """The critical learning rate of one new run; a bound of 0 or inf lies beyond the grid."""
        status = self.law.reach(n_params, self.law.lrs[0])
        if not status.can_tell:
            return Estimate(math.nan, math.nan, math.nan, status)
        rates = np.geomspace(self.law.lrs[0], self.law.lrs[-1], POINTS)
        past = np.maximum.accumulate([self._past(n_params, float(rate)) for rate in rates])
        tail = (1 - level) / 2
        median, low, high = (_reached(rates, past, share) for share in (0.5, tail, 1 - tail))
        if not 0 < median < math.inf:
            side = "below" if median == 0 else "above"
            status = Status.cannot_tell(f"it lies {side} the fitted learning rates")
            return Estimate(math.nan, low, high, status)
        return Estimate(median, low, high, status)

    def probability_unstable(self, n_params: float, lr: float) -> float:
        """Probability that the critical learning rate lies below `lr`; NaN if it cannot tell."""
        if not self.law.reach(n_params, lr).can_tell:
            return math.nan
        return self._past(n_params, lr)

    def _past(self, n_params: float, lr: float) -> float:
        belief = self.law.believe(n_params, lr)
        lines = math.log10(self.threshold) + self.threshold_sd * NODES
        return 1 - float(WEIGHTS @ np.array([belief.below(line) for line in lines]))


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
"""Gauss-Hermite rule over the threshold's normal distribution (Abramowitz and Stegun 25.4.46)."""
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def _reached(rates: np.ndarray, past: np.ndarray, share: float) -> float:
    """Learning rate at which a rising probability reaches a share; 0 or inf beyond the grid."""
    if past[0] >= share:
        return 0.0
    if past[-1] < share:
        return math.inf
    first = int((past >= share).argmax())
    step = (share - past[first - 1]) / (past[first] - past[first - 1])
    return float(rates[first - 1] * (rates[first] / rates[first - 1]) ** step)
