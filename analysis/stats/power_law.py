"""Where a loss curve will end: a power law fitted to its beginning.

Array names end in their axes: C exponents, S readings.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

FEWEST_READINGS: Final = 4
"""Readings from which a curve is extrapolated; three parameters and one to judge them by."""
EXPONENTS: Final = np.geomspace(0.05, 3.0, 25)
"""Exponents of the power law that are tried, from nearly logarithmic to nearly a step."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the loss at the end will be, nats: a Student's t for each exponent, weighted."""

    middle_C: np.ndarray
    sd_C: np.ndarray
    weight_C: np.ndarray
    df: int

    @property
    def mean(self) -> float:
        """The expected loss."""
        return float(np.average(self.middle_C, weights=self.weight_C))

    def above(self, loss: float) -> float:
        """Returns the probability that the run ends above a loss, 0..1."""
        above_C = special.stdtr(self.df, (self.middle_C - loss) / self.sd_C)
        return float(np.average(above_C, weights=self.weight_C))


def extrapolate(steps: np.ndarray, losses: np.ndarray, end: float) -> Ending | None:
    """Returns the loss that a curve will read at the step end; None under `FEWEST_READINGS`.

    The loss is a + b (step + 1)^-c with Gaussian noise: least squares in a and b >= 0 for each c of
    `EXPONENTS`, weighted by their likelihood. Such curves never rise, as those of Domhan et al.
    (2015): what bends upwards is expected to stay at its mean.
    """
    n = len(losses)
    if n < FEWEST_READINGS:
        return None
    x_CS = (steps + 1.0) ** -EXPONENTS[:, None]
    x_C, mean = x_CS.mean(axis=1), float(losses.mean())
    dx_CS, dy_S = x_CS - x_C[:, None], losses - mean
    power_C = (dx_CS**2).sum(axis=1)
    b_C = np.maximum(dx_CS @ dy_S / power_C, 0.0)
    rest_C = ((dy_S - b_C[:, None] * dx_CS) ** 2).sum(axis=1)
    # A curve without noise would divide by 0.
    rest_C = np.maximum(rest_C, n * (1e-6 * max(abs(mean), 1e-6)) ** 2)
    ahead_C = (end + 1.0) ** -EXPONENTS - x_C
    sd_C = np.sqrt(rest_C / (n - 2) * (1 + 1 / n + ahead_C**2 / power_C))
    log_C = -(n - 2) / 2 * np.log(rest_C)
    return Ending(mean + b_C * ahead_C, sd_C, np.exp(log_C - log_C.max()), n - 2)
