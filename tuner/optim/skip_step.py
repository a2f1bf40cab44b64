"""Which steps are skipped: those whose loss or gradient norm is far above the last ones."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

WINDOW = 128
"""Steps that a step is compared with."""
LEAST = 64
"""Steps that must have been seen before one may be skipped."""


class SkipStep:
    """Judges each step by the last ones, skipped ones included (OLMo-core's SkipStepOptimizer).

    An outlier is more than `sigma` standard deviations above the mean, in its loss or in its global
    gradient norm before clipping. Values that aren't finite are never skipped: they end the run.
    """

    def __init__(self, sigma: float):
        self.sigma = sigma
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.skipped = 0
        """Steps skipped so far."""

    def is_outlier(self, loss: float, norm: float) -> bool:
        """Returns whether to skip a step, and remembers it."""
        outlier = self._above(self.losses, loss) or self._above(self.norms, norm)
        self.losses.append(loss)
        self.norms.append(norm)
        self.skipped += outlier
        return outlier

    def _above(self, past: deque[float], value: float) -> bool:
        if len(past) < LEAST or not np.isfinite(value):
            return False
        return bool(value - np.mean(past) > self.sigma * np.std(past, ddof=1))

    def state_dict(self) -> dict[str, Any]:
        """Returns the last steps and how many were skipped."""
        return {"losses": list(self.losses), "norms": list(self.norms), "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what a `state_dict` remembers."""
        self.losses.extend(state["losses"])
        self.norms.extend(state["norms"])
        self.skipped = state["skipped"]
