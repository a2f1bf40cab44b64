"""Logistic regression with a ridge, on standardised columns: enough for a few hundred runs.

Newton steps (iteratively reweighted least squares; Nelder and Wedderburn 1972), halved where one
overshoots. The ridge keeps separable data finite (le Cessie and van Houwelingen 1992).
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NEWTON_STEPS = 100
HALVINGS = 30
TOLERANCE = 1e-10
"""Decrease of the mean loss, nats, below which the fit has converged."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """P = 1 / (1 + exp(-(intercept + coefficients . (x - mean) / scale)))."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    """Standard deviation of each column; 1 where a column is constant."""
    coefficients: tuple[float, ...]
    """Log odds per standard deviation."""
    intercept: float
    """Log odds at the mean of the columns."""

    def log_odds(self, design: np.ndarray) -> np.ndarray:
        """Returns the log odds (n,) of the rows of design (n, k); NaN where a row isn't finite."""
        rows = np.asarray(design, float)
        finite = np.all(np.isfinite(rows), axis=1)
        standard = (np.where(finite[:, None], rows, 0.0) - self.mean) / np.asarray(self.scale)
        return np.where(finite, self.intercept + standard @ np.asarray(self.coefficients), np.nan)

    def probability(self, design: np.ndarray) -> np.ndarray:
        """Returns the probability (n,) of the rows of design (n, k); NaN as in `log_odds`."""
        return sigmoid(self.log_odds(design))

    def to_json(self) -> str:
        """Returns the fit as a JSON object; `from_json` gives the same floats back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Logistic":
        """Returns the fit that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        vectors = {name: tuple(fields[name]) for name in ("mean", "scale", "coefficients")}
        return cls(**vectors, intercept=float(fields["intercept"]))


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-log_odds)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(log_odds, float)))


def fit_logistic(
    design: np.ndarray, labels: np.ndarray, *, l2: float, weights: np.ndarray | None = None
) -> Logistic:
    """Returns the fit of labels (n,), 0..1, on the columns of design (n, k).

    Minimises the weighted mean log loss plus l2 / 2 times the squared norm of the standardised
    coefficients; the intercept is ridged at a thousandth of that, so that it stays finite where
    every label is the same. Rows of weight 0 change nothing.
    """
    rows, targets, share = _clean(design, labels, l2, weights)
    mean = share @ rows
    spread = np.sqrt(share @ np.square(rows - mean))
    constant = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    scale = np.where(constant, 1.0, spread)
    standard = np.where(constant, 0.0, (rows - mean) / scale)
    ones = np.ones((len(standard), 1))
    ridge = np.r_[1e-3 * l2, np.full(rows.shape[1], l2)]
    solution = _newton(np.hstack([ones, standard]), targets, share, ridge)
    intercept, *coefficients = (float(value) for value in solution)
    return Logistic(tuple(mean.tolist()), tuple(scale.tolist()), tuple(coefficients), intercept)


def _clean(
    design: np.ndarray, labels: np.ndarray, l2: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments as floats, and the weights as shares that add up to 1."""
    rows = np.asarray(design, float)
    targets = np.asarray(labels, float)
    weight = np.ones(len(targets)) if weights is None else np.asarray(weights, float)
    if rows.ndim != 2 or not len(rows) == len(targets) == len(weight):
        raise ValueError(
            f"design must be (n, k) with n labels and n weights, got {rows.shape}, "
            f"{len(targets)} and {len(weight)}; give one row per label."
        )
    if not (np.isfinite(rows).all() and np.isfinite(targets).all() and np.isfinite(weight).all()):
        raise ValueError("design, labels and weights must be finite; leave out or fill such rows.")
    if not l2 > 0 or (weight < 0).any() or not weight.sum() > 0:
        raise ValueError(
            f"l2 and the sum of weights must be above 0 and no weight below, got l2 {l2:g} and "
            f"weights that sum to {weight.sum():g}; a ridge of 1e-2 suits a few hundred runs."
        )
    return rows, targets, weight / weight.sum()


def _newton(
    design: np.ndarray, labels: np.ndarray, share: np.ndarray, ridge: np.ndarray
) -> np.ndarray:
    """The coefficients that minimise `_loss`, which is convex."""
    beta = np.zeros(design.shape[1])
    loss = _loss(beta, design, labels, share, ridge)
    for _ in range(NEWTON_STEPS):
        probability = sigmoid(design @ beta)
        gradient = design.T @ (share * (probability - labels)) + ridge * beta
        curvature = share * probability * (1 - probability)
        hessian = (design.T * curvature) @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        for halving in range(HALVINGS):
            candidate = beta - step / 2**halving
            lower = _loss(candidate, design, labels, share, ridge)
            if lower < loss:
                break
        else:
            return beta
        done = loss - lower < TOLERANCE
        beta, loss = candidate, lower
        if done:
            break
    return beta


def _loss(
    beta: np.ndarray,
    design: np.ndarray,
    labels: np.ndarray,
    share: np.ndarray,
    ridge: np.ndarray,
) -> float:
    odds = design @ beta
    log_loss = np.logaddexp(0.0, odds) - labels * odds
    return float(share @ log_loss + 0.5 * ridge @ np.square(beta))
