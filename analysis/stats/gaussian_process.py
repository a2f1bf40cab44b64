"""Robust Gaussian-process regression on few points, with observations known only from below.

y = f + u + e: f has a covariance with hyperparameters, u is shared by the rows of a group (a size's
own oddity), e is noise whose variance is divided by each row's weight. Hyperparameters at the
maximum of the posterior (Rasmussen and Williams 2006, equation 5.8, with a normal prior on each),
then `ROUNDS` reweightings as Student's t with 4 degrees of freedom has them, so that an odd run
counts for little. Rows known only from below are imputed by their expectation, and weigh what an
exact observation would tell less.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from foretune.analysis.stats.predictive import Array, Belief, student_t
from foretune.analysis.stats.regression import truncated

ROUNDS: Final = 3
STUDENT: Final = 4.0
"""Degrees of freedom of the noise that the weights stand for (`forecast.md` 5.1)."""
IMPUTATIONS: Final = 20
"""Rounds of imputing per reweighting."""
GROUP: Final = math.log(0.05)
LOG_NOISE: Final = math.log(0.08)
"""Prior medians of a size's own oddity and of the noise, dex (`forecast.md` 5.2)."""
WIDE: Final = 3.0
"""Prior deviation of a level (dex) and of a slope in log learning rate."""
PRIOR_WORTH: Final = 4.0
"""Observations that the prior of the noise counts for in the degrees of freedom."""
LEAST: Final = 1e-3
"""Weight that a bound keeps, however little it says."""
STEP: Final = 1e-4
"""Difference in a hyperparameter from which the slope is taken."""

Covariance = Callable[[Array, Array, Array], Array]
"""Hyperparameters (..., H), rows (A, 2), rows (B, 2) -> covariance of f, (..., A, B)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A covariance and the prior of its hyperparameters; group and noise deviations come last."""

    covariance: Covariance
    mean: tuple[float, ...]
    """Of each hyperparameter; the last two are the logs of the group's and the noise's sd."""
    sd: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Process:
    """A fitted process; predicts one new observation of a group of its own."""

    kernel: Kernel
    theta: Array
    rows: Array
    factor: tuple[Array, bool]
    """Cholesky factor of the covariance of y."""
    solved: Array
    """That covariance's inverse times y."""
    df: float
    fitted: Array
    """f at the rows."""
    evidence: float
    """log density of y and hyperparameters at their maximum, before any reweighting."""

    @property
    def noise(self) -> float:
        """Standard deviation of one observation at weight 1."""
        return float(np.exp(self.theta[-1]))

    def believe(self, rows: Array) -> list[Belief]:
        """What is believed of one new observation at each row, in a group not seen before."""
        cross = self.kernel.covariance(self.theta, rows, self.rows)
        own = np.diag(self.kernel.covariance(self.theta, rows, rows))
        known = np.einsum("ij,ji->i", cross, cho_solve(self.factor, cross.T))
        extra = np.exp(2 * self.theta[-2]) + np.exp(2 * self.theta[-1])
        spreads = np.sqrt(np.maximum(own - known, 0.0) + extra)
        centres = cross @ self.solved
        return [student_t(c, s, self.df) for c, s in zip(centres, spreads, strict=True)]


@dataclass(frozen=True, slots=True)
class _Problem:
    kernel: Kernel
    rows: Array
    same: Array
    """1 where two rows share a group, (R, R)."""
    low: Array
    exact: NDArray[np.bool_]

    def total(self, theta: Array, weights: Array) -> Array:
        """Covariance of y, (..., R, R)."""
        inside = self.kernel.covariance(theta, self.rows, self.rows)
        group, noise = (np.exp(2 * theta[..., index, None, None]) for index in (-2, -1))
        return inside + group * self.same + noise * np.diag(1 / weights)


def fit_process(
    kernel: Kernel, rows: Array, low: Array, exact: NDArray[np.bool_], groups: NDArray[np.int64]
) -> Process:
    """The process given responses `low`, which is a lower bound where not `exact`."""
    same = (groups[:, None] == groups[None, :]).astype(float)
    problem = _Problem(kernel, rows, same, low, exact)
    response, weights, trust = low, np.ones(len(low)), np.ones(len(low))
    theta, evidence = _maximum(problem, response, weights, np.array(kernel.mean))
    for _ in range(ROUNDS):
        response, trust = _impute(problem, response, weights * trust, theta)
        fitted = _condition(problem, response, weights * trust, theta).fitted
        squares = ((response - fitted) / np.exp(theta[-1])) ** 2
        weights = np.where(exact, (STUDENT + 1) / (STUDENT + squares), 1.0)
        theta, _ = _maximum(problem, response, weights * trust, theta)
    return replace(_condition(problem, response, weights * trust, theta), evidence=evidence)


def log_evidence(
    kernel: Kernel, rows: Array, low: Array, exact: NDArray[np.bool_], groups: NDArray[np.int64]
) -> float:
    """What `fit_process` would have as `evidence`, without the reweightings."""
    same = (groups[:, None] == groups[None, :]).astype(float)
    problem = _Problem(kernel, rows, same, low, exact)
    return _maximum(problem, low, np.ones(len(low)), np.array(kernel.mean))[1]


def _impute(
    problem: _Problem, response: Array, weights: Array, theta: Array
) -> tuple[Array, Array]:
    """Expected responses given their bounds, and what each then tells of an exact one's share."""
    exact, low = problem.exact, problem.low
    trust = np.ones(len(low))
    for _ in range(0 if exact.all() else IMPUTATIONS):
        fitted = _condition(problem, response, weights, theta).fitted
        high = np.where(exact, low, np.inf)
        expected, left = truncated(fitted, math.exp(theta[-1]), low, high)
        response = np.where(exact, low, expected)
        trust = np.where(exact, 1.0, np.maximum(1 - left, LEAST))
        weights = np.where(exact, weights, trust)
    return response, trust


def _maximum(
    problem: _Problem, response: Array, weights: Array, start: Array
) -> tuple[Array, float]:
    mean, sd = np.array(problem.kernel.mean), np.array(problem.kernel.sd)
    steps = STEP * np.concatenate([np.zeros((1, len(mean))), np.eye(len(mean))])
    target = np.broadcast_to(response[:, None], (len(steps), len(response), 1))

    def loss(theta: Array) -> tuple[float, Array]:
        # All the shifted copies at once: one batched factorization instead of many small ones.
        shifted = theta + steps
        root = np.linalg.cholesky(problem.total(shifted, weights))
        white = np.linalg.solve(root, target)
        fit = 0.5 * (white**2).sum((1, 2)) + np.log(np.diagonal(root, 0, 1, 2)).sum(1)
        values = fit + 0.5 * (((shifted - mean) / sd) ** 2).sum(1)
        return float(values[0]), (values[1:] - values[0]) / STEP

    limits = list(zip(mean - 4 * sd, mean + 4 * sd, strict=True))
    options = {"maxiter": 60, "ftol": 1e-7}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, options=options)
    return found.x, -float(found.fun)


def _condition(problem: _Problem, response: Array, weights: Array, theta: Array) -> Process:
    inside = problem.kernel.covariance(theta, problem.rows, problem.rows)
    factor = cho_factor(problem.total(theta, weights), lower=True)
    solved = cho_solve(factor, response)
    return Process(
        kernel=problem.kernel,
        theta=theta,
        rows=problem.rows,
        factor=(np.asarray(factor[0]), bool(factor[1])),
        solved=solved,
        # Whatever lies beyond the fitted sizes is known from as many of them as there are.
        df=PRIOR_WORTH + float(np.linalg.matrix_rank(problem.same)) - 1,
        fitted=inside @ solved,
        evidence=math.nan,
    )
