"""What is believed of one number: a mixture of Student's t distributions, and how to score it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.floating]
BISECTIONS = 60
"""Halvings of the range that holds a quantile: 2^-60 of it is left."""
QUANTILES = 400
"""Quantiles over which a CRPS is summed; within 0.5 % of a normal's closed form."""
UNHEARD_OF = 1e-6
"""Tail in which a quantile is no longer sought."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A mixture of Student's t; all arrays of one length, in the units of the number."""

    weights: Array
    centres: Array
    spreads: Array
    dfs: Array

    def below(self, value: float) -> float:
        """Probability that the number lies below a value."""
        return float(self._below(np.array([value]))[0])

    def quantile(self, levels: Array) -> Array:
        """The values below which the number lies with these probabilities, strictly in 0..1."""
        levels = np.asarray(levels, float)
        if len(self.weights) == 1:
            return self.centres + self.spreads * special.stdtrit(self.dfs, levels)
        tails = special.stdtrit(self.dfs, np.minimum(UNHEARD_OF, levels.min() / 2))
        low = np.full(levels.shape, (self.centres + self.spreads * tails).min())
        tails = special.stdtrit(self.dfs, np.maximum(1 - UNHEARD_OF, (1 + levels.max()) / 2))
        high = np.full(levels.shape, (self.centres + self.spreads * tails).max())
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            under = self._below(middle) < levels
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return (low + high) / 2

    def interval(self, level: float) -> tuple[float, float, float]:
        """Median, low and high; `level` of the probability lies between the last two."""
        tail = (1 - level) / 2
        median, low, high = self.quantile(np.array([0.5, tail, 1 - tail]))
        return float(median), float(low), float(high)

    def crps(self, value: float) -> float:
        """Continuous ranked probability score, in the number's units; 0 is perfect.

        Twice the mean quantile score (Gneiting and Ranjan 2011, equation 3).
        """
        levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
        found = self.quantile(levels)
        return float(2 * (((value <= found) - levels) * (found - value)).mean())

    def _below(self, values: Array) -> Array:
        scaled = (values[..., None] - self.centres) / self.spreads
        return special.stdtr(self.dfs, scaled) @ self.weights


def student_t(centre: float, spread: float, df: float) -> Belief:
    """One Student's t."""
    return Belief(*(np.array([x], float) for x in (1.0, centre, spread, df)))


def mix(beliefs: Sequence[Belief], weights: Array) -> Belief:
    """The mixture of several beliefs; the weights must sum to 1."""
    shares = np.concatenate([w * b.weights for w, b in zip(weights, beliefs, strict=True)])
    rest = ((b.centres, b.spreads, b.dfs) for b in beliefs)
    return Belief(shares, *(np.concatenate(parts) for parts in zip(*rest, strict=True)))
