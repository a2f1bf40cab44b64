"""The forms of a signal over size and learning rate, by name."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from foretune.analysis.laws.polynomials import Shape, fit_polynomial
from foretune.analysis.laws.varying import SLIDING, VARYING, fit_smooth
from foretune.analysis.stats.predictive import Array, Belief


class Surface(Protocol):
    """A fitted log10 signal over n = log10 N and log10 learning rate."""

    @property
    def fitted(self) -> Array:
        """log10 signal at the fitted cells."""
        ...

    def believe(self, n: float, log_lr: float) -> Belief:
        """What is believed of the log10 signal of one new run."""
        ...


FitSurface = Callable[[Array, Array, Array, NDArray[np.bool_], NDArray[np.int64]], Surface]
"""log10 N, log10 LR, log10 value (a lower bound where not exact), exact, group -> surface."""

SHAPES: Final = MappingProxyType(
    {
        "per-lr-linear": Shape(1, True),
        "per-lr-quadratic": Shape(2, True),
        "bilinear": Shape(1, False),
        "full-quadratic": Shape(2, False),
    }
)
KERNELS: Final = MappingProxyType({"varying-coefficient": VARYING, "sliding": SLIDING})
FITS: Final[Mapping[str, FitSurface]] = MappingProxyType(
    {name: partial(fit_polynomial, shape) for name, shape in SHAPES.items()}
    | {name: partial(fit_smooth, kernel) for name, kernel in KERNELS.items()}
)
