"""The average of all forms, each weighted by how probable it makes the cells."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from foretune.analysis.laws.polynomials import fit_polynomial, polynomial_kernel
from foretune.analysis.laws.surfaces import FITS, KERNELS, SHAPES, Surface
from foretune.analysis.laws.varying import centred, fit_smooth
from foretune.analysis.stats.gaussian_process import log_evidence
from foretune.analysis.stats.predictive import Array, Belief, mix

AVERAGED: Final = tuple(FITS)
TEMPER: Final = 0.5
"""Power of the evidence: no form is quite true, and cells of a size share more than a level, so
that they tell less than their number (Grunwald and van Ommen 2017)."""


@dataclass(frozen=True, slots=True)
class Average:
    """Several surfaces and the weight of each, in the order of `AVERAGED`."""

    surfaces: tuple[Surface, ...]
    weights: Array

    @property
    def fitted(self) -> Array:
        """Mean log10 signal at the fitted cells."""
        return self.weights @ np.stack([surface.fitted for surface in self.surfaces])

    def believe(self, n: float, log_lr: float) -> Belief:
        """The mixture of what each surface believes."""
        return mix([surface.believe(n, log_lr) for surface in self.surfaces], self.weights)


def fit_average(
    n: Array, log_lr: Array, value: Array, exact: NDArray[np.bool_], groups: NDArray[np.int64]
) -> Average:
    """The mixture of `AVERAGED` by posterior probability, all equally probable before.

    The evidence of each is its density as a Gaussian process at the most probable hyperparameters,
    which is what the Bayesian information criterion approximates for many cells; here there are as
    few as there are coefficients, and a criterion that counts these prefers interpolation.
    """
    cells = (n, log_lr, value, exact, groups)
    rows, response = centred(n, log_lr), value - value.mean()
    kernels = [polynomial_kernel(shape, np.unique(rows[:, 1])) for shape in SHAPES.values()]
    evidence = [log_evidence(kernel, rows, response, exact, groups) for kernel in kernels]
    smooth = [fit_smooth(kernel, *cells) for kernel in KERNELS.values()]
    evidence = np.array([*evidence, *(surface.evidence for surface in smooth)])
    weights = np.exp(TEMPER * (evidence - evidence.max()))
    lines = [fit_polynomial(shape, *cells) for shape in SHAPES.values()]
    return Average((*lines, *smooth), weights / weights.sum())
