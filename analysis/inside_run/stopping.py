"""The stop rule of a live run: end it where the forecast passes a threshold that rarely errs.

The threshold bounds how often a healthy run is stopped (`analysis.stats.conformal`, on the maximum
of a run's forecasts over all its readings). What the rule knows of a run are the rows that it was
given in order, so giving it a file's rows again restores it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from foretune.analysis.inside_run.contract import Forecast
from foretune.analysis.inside_run.features import LOGIT, Trace
from foretune.analysis.inside_run.landmark import Landmarks, read_landmarks
from foretune.analysis.stats.series import number
from foretune.argument_error import Argument, ArgumentError

FALSE_STOPS: Final = 0.05
"""Default share of healthy runs that may be stopped."""
FARTHEST: Final = 64.0
"""How many times larger or smaller than all the fitted ones a model may be."""


class StopRule:
    """Judges one run row by row."""

    def __init__(
        self,
        context: Mapping[str, Any],
        *,
        false_stops: float = FALSE_STOPS,
        model: Landmarks | None = None,
    ):
        """context is that of `analysis.inside_run.contract`. Raises ValueError where the model has
        no threshold for so few false stops."""
        self.model = read_landmarks() if model is None else model
        self.context = dict(context)
        self.threshold = threshold_of(self.model, false_stops)
        self.trace = Trace()
        self.largest = -math.inf
        """Largest probability so far."""
        self.newest: Forecast | None = None
        """What the newest reading said, whether or not it could tell."""

    @property
    def extrapolation(self) -> float:
        """How many times larger or smaller the model is than all the fitted ones; 1 among them."""
        low, high = self.model.about.get("horizon", {}).get("n_params", (0.0, math.inf))
        size = number(self.context, "n_params")
        return max(1.0, size / high, low / size) if size > 0 else math.nan

    def horizon_problem(self) -> str:
        """Returns why the forecast can tell nothing of such a run, a clause; nothing where it can.

        All settings must lie in the fitted ranges, but sizes may be `FARTHEST` times beyond.
        """
        for name, (low, high) in self.model.about.get("horizon", {}).items():
            found = number(self.context, name)
            far = FARTHEST if name == "n_params" else 1.0
            if not low / far <= found <= high * far:
                got = f"got {_plain(found)}" if math.isfinite(found) else "which this run has not"
                fitted = _plain(low) if low == high else f"{_plain(low)} to {_plain(high)}"
                return f"it was fitted on runs with {name} {fitted}, {got}"
        return ""

    def observe(self, step: int, row: Mapping[str, float]) -> Forecast | None:
        """Takes in a row; returns the forecast where the run should end, else None.

        Judges only rows with a reading of the attention logits.
        """
        self.trace.append(step, row)
        if LOGIT not in row:
            return None
        forecast = self.newest = self.model.judge(self.trace, self.context)
        if not forecast.status.is_ok:
            return None
        self.largest = max(self.largest, forecast.probability)
        if forecast.probability <= self.threshold:
            return None
        return replace(
            forecast,
            reason=f"forecast to end unstable with probability {forecast.probability:.3f}, above "
            f"{self.threshold:.3f}: {forecast.reason}",
        )


def noted(found: Forecast, *, threshold: float, step: int, audited: bool) -> dict[str, Any]:
    """Returns what outcome.json has of a forecast by which a run ends, or would have ended."""
    return {
        "probability": found.probability,
        "threshold": threshold,
        "step": step,
        "by_step": found.step if math.isfinite(found.step) else None,
        "reason": found.reason,
        "audited": audited,
    }


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def threshold_of(model: Landmarks, false_stops: float) -> float:
    """Returns the probability above which a run is stopped, for a share of false stops."""
    known = {float(rate): value for rate, value in model.about.get("thresholds", {}).items()}
    for rate, value in known.items():
        if math.isclose(rate, false_stops):
            return float(value)
    rates = ", ".join(f"{rate:g}" for rate in sorted(known)) or "none"
    raise ArgumentError(
        Argument("false_stops"),
        f" must be one of the rates that the forecast was calibrated for, {rates}, got "
        f"{false_stops:g}.",
    )
