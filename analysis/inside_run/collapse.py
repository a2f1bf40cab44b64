"""The collapse residual: how far a loss curve leaves the course that healthy runs have in common.

Bergsma et al. 2025 (arXiv 2509.25087): loss over final loss, against the share of steps, is one
curve for models of all sizes; a run that leaves it has gone wrong. A run that isn't over has no
final loss, so the common curve is first laid over what there is of it, as they do to stop early.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, cannot_tell, rank
from foretune.analysis.stats.series import number, readings, smoothed, squashed

SHARES: Final = np.linspace(0.0, 1.0, 101)
"""Shares of all steps at which a common curve is held."""
LEFT_OUT: Final = 0.25
"""Share of a prefix, its oldest, over which curves aren't laid: it is the fall from the start."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """Ranks by the collapse residual; its curves are fitted on healthy runs, one per length.

    Sizes share a curve: that they do is the paper's claim. Unit: shares of the final loss.
    """

    curves: Mapping[int, tuple[float, ...]]
    """Total steps -> the median, over healthy runs, of smoothed loss / final loss at `SHARES`."""
    scale: float = 0.05
    """Residual that scores three quarters."""
    least: int = 4
    """Losses without which nothing is said."""

    @classmethod
    def fit(cls, trials: pd.DataFrame, telemetry: pd.DataFrame) -> "Collapse":
        """Returns the common curves of these runs, which are to be healthy.

        ValueError where there is none.
        """
        if trials.empty:
            raise ValueError("a common curve must be that of healthy runs, got none; give some.")
        losses = dict(tuple(telemetry.groupby("run_id", observed=True)))
        return cls(
            {
                int(steps): tuple(
                    np.median([_normalised(losses[name], int(steps)) for name in alike], axis=0)
                )
                for steps, alike in trials.groupby("steps")["run_id"]
            }
        )

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        residual = self.residual(history, number(context, "total_steps"))
        if math.isnan(residual):
            return cannot_tell(f"total_steps and {self.least} losses are needed")
        reason = f"loss {residual:+.1%} from the course of healthy runs"
        return rank(squashed(residual, self.scale), reason)

    def residual(self, history: pd.DataFrame, total_steps: float) -> float:
        """Returns newest smoothed loss over the final loss that fits best, minus the common curve.

        The final loss is the factor that lays the curve over the newer three quarters of the
        prefix, by least squares. Causal; NaN where there is too little to say.
        """
        steps, losses = readings(history, "loss")
        steps, losses = steps[steps >= 0], losses[steps >= 0]
        if len(losses) < self.least or not total_steps > 0:
            return math.nan
        common = np.interp((steps + 1) / total_steps, SHARES, self.curve(total_steps))
        own, newer = smoothed(losses), slice(int(LEFT_OUT * len(losses)), None)
        final = own[newer] @ common[newer] / (common[newer] @ common[newer])
        return float(own[-1] / final - common[-1]) if final > 0 else math.nan

    def curve(self, total_steps: float) -> tuple[float, ...]:
        """Returns the common curve of the fitted length that is nearest by its logarithm."""
        return self.curves[min(self.curves, key=lambda steps: abs(math.log(steps / total_steps)))]


def _normalised(history: pd.DataFrame, total_steps: int) -> np.ndarray:
    """Smoothed loss of a whole run over its last, at `SHARES`."""
    steps, losses = readings(history.sort_values("step"), "loss")
    own = smoothed(losses)
    return np.interp(SHARES, (steps + 1) / total_steps, own / own[-1])
