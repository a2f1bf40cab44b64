"""Polynomials in log N and log learning rate, fitted by conjugate regression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretune.analysis.stats.gaussian_process import GROUP, LOG_NOISE, WIDE, Kernel
from foretune.analysis.stats.predictive import Array, Belief, student_t
from foretune.analysis.stats.regression import Posterior, Prior, regress

NOISE = 0.08
"""Prior noise of one signal, dex, worth 4 observations; the size effect has variance 0.4 of it."""
SDS = (100.0, 1.0, 0.3)
"""Prior deviation of a learning rate's level, slope and curvature in log N."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How log10 signal depends on n = log10 N and l = log10 learning rate."""

    degree: int
    """Of the polynomial in n."""
    per_lr: bool
    """One polynomial per learning rate; else one surface over all of them."""

    @property
    def rates(self) -> int:
        """Learning rates that it needs."""
        return 1 if self.per_lr else self.degree + 1


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A fitted shape."""

    shape: Shape
    rates: Array
    """log10 of the fitted learning rates, ascending."""
    centre: float
    """log10 N at which the polynomials are centred."""
    posterior: Posterior
    fitted: Array

    def believe(self, n: float, log_lr: float) -> Belief:
        """What is believed of the log10 signal of one new run at a size and learning rate."""
        if not self.shape.per_lr:
            return self.posterior.believe(self._columns(n, np.array([log_lr]))[0])
        # Between two fitted learning rates, logs are interpolated: each has its own curve.
        known = [self.posterior.believe(row) for row in self._columns(n, self.rates)]
        centre = np.interp(log_lr, self.rates, [float(b.centres[0]) for b in known])
        spread = np.interp(log_lr, self.rates, [float(b.spreads[0]) for b in known])
        return student_t(float(centre), float(spread), self.posterior.df)

    def _columns(self, n: float, log_lr: Array) -> Array:
        return columns(self.shape, np.full(len(log_lr), n - self.centre), log_lr, self.rates)


def fit_polynomial(
    shape: Shape,
    n: Array,
    log_lr: Array,
    value: Array,
    exact: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> Polynomial:
    """The shape fitted to log10 values, which are lower bounds where not `exact`."""
    rates = np.unique(log_lr)
    centre = float((n.min() + n.max()) / 2)
    design = columns(shape, n - centre, log_lr, rates)
    prior = _prior(shape, len(rates))
    posterior = regress(design, value, np.where(exact, value, np.inf), groups, prior)
    return Polynomial(shape, rates, centre, posterior, design @ posterior.mean)


def polynomial_kernel(shape: Shape, rates: Array) -> Kernel:
    """The same shape as a Gaussian process, whose evidence compares with that of others.

    `rates` are log10 learning rates as the rows will have them.
    """
    sd = np.minimum(_prior(shape, len(rates)).sd, WIDE)

    def covariance(theta: Array, a: Array, b: Array) -> Array:
        left, right = (columns(shape, x[:, 0], x[:, 1], rates) for x in (a, b))
        inside = (left * sd**2) @ right.T
        return np.broadcast_to(inside, (*theta.shape[:-1], *inside.shape))

    return Kernel(covariance, mean=(GROUP, LOG_NOISE), sd=(0.7, 0.5))


def columns(shape: Shape, n: Array, log_lr: Array, rates: Array) -> Array:
    """The design matrix: rows as given, one column per coefficient."""
    if shape.per_lr:
        powers = np.stack([n**power for power in range(shape.degree + 1)], axis=1)
        member = (np.abs(log_lr[:, None] - rates[None, :]) < 1e-9).astype(float)
        return (member[:, :, None] * powers[:, None, :]).reshape(len(n), -1)
    rate = log_lr - rates.mean()
    squares = [n**2, rate**2] if shape.degree == 2 else []
    return np.stack([np.ones_like(n), n, rate, n * rate, *squares], axis=1)


def _prior(shape: Shape, n_rates: int) -> Prior:
    plane = (100.0, 3.0, 3.0, 1.0)
    sd = plane if shape.degree == 1 else (*plane, SDS[2], 1.0)
    if shape.per_lr:
        sd = SDS[: shape.degree + 1] * n_rates
    return Prior((0.0,) * len(sd), tuple(sd), NOISE, worth=4.0, group_share=0.4)
