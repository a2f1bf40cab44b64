"""Surfaces over size and learning rate as Gaussian processes: coefficients that vary, and a slide.

`varying`: y = alpha(l) + beta(l) n + gamma(l) n^2 with smooth coefficients, n = log10 N from the
largest fitted size and l = log10 learning rate: each learning rate has a line of its own, borrows
from its neighbours, and its curvature is shrunk (hierarchical varying coefficients, Hastie and
Tibshirani 1993).

`sliding`: y = f(l + s n) + drift: one curve in the learning rate, of any shape, that moves along
the axis as the model grows. What the largest size will do at a low learning rate has then already
been seen at a smaller one and a higher rate.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from foretune.analysis.stats.gaussian_process import (
    GROUP,
    LOG_NOISE,
    WIDE,
    Kernel,
    Process,
    fit_process,
)
from foretune.analysis.stats.predictive import Array, Belief


def _alike(x: Array, z: Array, log_length: Array) -> Array:
    """Squared-exponential correlation of two lists of places; hyperparameters lead."""
    gap = (x[..., :, None] - z[..., None, :]) / np.exp(log_length)[..., None, None]
    return np.exp(-0.5 * gap**2)


def _variance(theta: Array, index: int) -> Array:
    return np.exp(2 * theta[..., index, None, None])


def _varying(theta: Array, a: Array, b: Array) -> Array:
    """Deviations of alpha, beta and gamma, then the length in l over which they vary."""
    n = a[:, None, 0] * b[None, :, 0]
    line = 1 + a[:, None, 1] * b[None, :, 1]
    alike = _alike(a[:, 1], b[:, 1], theta[..., 3])
    bent = _variance(theta, 2) * n**2 * (1 + alike) / 2
    varied = (_variance(theta, 0) + _variance(theta, 1) * n) * alike
    return WIDE**2 * line + n * line + varied + bent


def _sliding(theta: Array, a: Array, b: Array) -> Array:
    """Slope s, deviation and length of f, deviations of the drift and of f's change with n."""
    slope = theta[..., 0, None]
    x, z = a[:, 1] + slope * a[:, 0], b[:, 1] + slope * b[:, 0]
    n = a[:, 0, None] * b[None, :, 0]
    line = WIDE**2 * (1 + x[..., :, None] * z[..., None, :])
    alike = _alike(x, z, theta[..., 2])
    changed = n * (_variance(theta, 3) + _variance(theta, 4) * alike)
    return line + _variance(theta, 1) * alike + changed


VARYING: Final = Kernel(
    _varying,
    mean=(math.log(0.3), math.log(0.15), math.log(0.1), math.log(0.7), GROUP, LOG_NOISE),
    sd=(0.7, 0.7, 0.7, 0.5, 0.7, 0.5),
)
SLIDING: Final = Kernel(
    _sliding,
    mean=(
        0.5,
        math.log(0.7),
        math.log(0.5),
        math.log(0.07),
        math.log(0.15),
        GROUP,
        LOG_NOISE,
    ),
    sd=(0.1, 0.7, 0.5, 0.7, 0.7, 0.7, 0.5),
)
"""The slope's prior is that of the critical learning rate, -0.5 dex per decade of N, and narrow: a
signal that doesn't slide is for the other forms."""


@dataclass(frozen=True, slots=True)
class Smooth:
    """A fitted surface."""

    process: Process
    n_centre: float
    lr_centre: float
    level: float
    """log10 signal that the process counts from."""

    @property
    def fitted(self) -> Array:
        """log10 signal at the cells."""
        return self.process.fitted + self.level

    @property
    def evidence(self) -> float:
        """log density of the cells under this kernel."""
        return self.process.evidence

    def believe(self, n: float, log_lr: float) -> Belief:
        """What is believed of the log10 signal of one new run at a size and learning rate."""
        row = np.array([[n - self.n_centre, log_lr - self.lr_centre]])
        found = self.process.believe(row)[0]
        return replace(found, centres=found.centres + self.level)


def fit_smooth(
    kernel: Kernel,
    n: Array,
    log_lr: Array,
    value: Array,
    exact: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> Smooth:
    """The kernel's surface fitted to log10 values, which are lower bounds where not `exact`."""
    level = float(value.mean())
    process = fit_process(kernel, centred(n, log_lr), value - level, exact, groups)
    return Smooth(process, float(n.max()), float(log_lr.mean()), level)


def centred(n: Array, log_lr: Array) -> Array:
    """Rows as kernels take them: n from the largest size, log learning rate from the mean."""
    return np.stack([n - n.max(), log_lr - log_lr.mean()], axis=1)
