"""The fitted forecast inside a run: a logistic of its readings at each of several landmarks.

At a landmark (a share of all steps) the label is how the run ends, so each fit is a dynamic
prediction (van Houwelingen 2007); between two landmarks the earlier one answers. The model is a
value that is stored beside the code, with the configurations that it was fitted on as its horizon.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, cannot_tell
from foretune.analysis.inside_run.features import FEATURES, LOGIT, Trace, read_features
from foretune.analysis.stats.logistic import Logistic, fit_logistic
from foretune.analysis.stats.series import number

LANDMARKS: Final = (0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.30, 0.45, 0.60, 0.80)
"""Shares of all steps at which a fit answers first."""
LEFT_OUT: Final = ("logit_projected", "log_z", "logits", "update_output")
CHOSEN: Final = tuple(name for name in FEATURES if name not in LEFT_OUT)
"""Features that the model reads, chosen like the ridge by cross-validation on the `fit` split.

`rate_size` is the prior from across scale: the critical learning rate falls as N to the -0.5.
"""
RIDGE: Final = 0.003
"""Per squared standardised coefficient; chosen there too."""
SHIPPED: Final = Path(__file__).with_name("forecast.json")
"""The model fitted on the repository's bank."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """A forecast for runs like those it was fitted on; call it as any predictor."""

    shares: tuple[float, ...]
    features: tuple[str, ...]
    fill: tuple[tuple[float, ...], ...]
    """What stands for a missing feature at each landmark: the median of the fitted runs."""
    fits: tuple[Logistic, ...]
    about: dict[str, Any]
    """Which runs it was fitted on, and the stop thresholds by rate of false stops."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        """Returns the probability that the run ends unstable, from the prefix alone."""
        return self.judge(Trace.of(history), context)

    def judge(self, trace: Trace, context: Mapping[str, Any]) -> Forecast:
        """Returns the forecast of a live run."""
        steps = number(context, "total_steps")
        if not 0 < steps < math.inf:
            return cannot_tell("the number of steps is not known")
        step = trace.newest_step
        at = int(np.searchsorted(self.shares, (step + 1) / steps + 1e-9, side="right")) - 1
        if at < 0:
            return cannot_tell(
                f"{step + 1} of {steps:g} steps are too few, the first look is at "
                f"{self.shares[0]:.0%}"
            )
        if not trace.values(LOGIT):
            return cannot_tell("the model has no attention logits, and only such were fitted")
        found = read_features(trace, context)
        row = np.array([found[name] for name in self.features])
        row = np.where(np.isfinite(row), row, self.fill[at])
        probability = float(self.fits[at].probability(row[None])[0])
        return Forecast(probability, _by(found, step, steps), self._reason(found, row, at))

    def _reason(self, found: Mapping[str, float], row: np.ndarray, at: int) -> str:
        """The largest contribution to the log odds, with the number behind it."""
        fit = self.fits[at]
        parts = (row - np.array(fit.mean)) / np.array(fit.scale) * np.array(fit.coefficients)
        worst = self.features[int(np.argmax(parts))]
        return f"largest attention logit {10 ** found['logit']:.3g}; weighs most: {worst}"

    def to_json(self) -> str:
        """Returns the model as JSON; `read_landmarks` reads it back."""
        fields = asdict(self)
        return json.dumps(_rounded(fields), indent=None) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(part) for part in value]
    return value


@lru_cache(maxsize=4)
def read_landmarks(path: Path = SHIPPED) -> Landmarks:
    """Returns a stored model; ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"the forecast's model must be there, got no {path}; fit one.")
    fields = json.loads(path.read_text())
    fits = tuple(Logistic.from_json(json.dumps(fit)) for fit in fields["fits"])
    return Landmarks(
        shares=tuple(fields["shares"]),
        features=tuple(fields["features"]),
        fill=tuple(tuple(row) for row in fields["fill"]),
        fits=fits,
        about=fields["about"],
    )


def _by(found: Mapping[str, float], step: int, steps: float) -> float:
    """The step at which the logit meets 100 if it goes on along its power of the step.

    The newest step where it has; NaN where it isn't on its way.
    """
    missing = 2.0 - found["logit"]
    if missing <= 0:
        return float(step)
    slope = found["logit_slope"]
    if not slope > 0:
        return math.nan
    at = (step + 1) * 10 ** min(missing / slope, 6.0)
    return float(at) if at <= steps else math.nan


def filled(frame: pd.DataFrame, features: Sequence[str]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the design matrix with missing values filled by each column's median, and those."""
    columns = frame[list(features)].to_numpy(float)
    with np.errstate(invalid="ignore"):
        medians = [float(np.median(c[np.isfinite(c)])) if np.isfinite(c).any() else 0.0
                   for c in columns.T]  # fmt: skip
    return np.where(np.isfinite(columns), columns, medians), tuple(medians)


def fit_landmarks(
    readings: pd.DataFrame,
    labels: pd.Series,
    *,
    features: Sequence[str] = CHOSEN,
    ridge: float = RIDGE,
    about: Mapping[str, Any] | None = None,
) -> Landmarks:
    """Returns the model of readings: one row per run and landmark.

    readings has columns `run_id`, `share` and the features; labels are indexed by run_id.
    """
    shares, fits, fills = [], [], []
    for share, rows in readings.groupby("share"):
        matrix, fill = filled(rows, features)
        truth = labels.loc[rows["run_id"]].to_numpy(float)
        shares.append(float(share))
        fills.append(fill)
        fits.append(fit_logistic(matrix, truth, l2=ridge))
    return Landmarks(tuple(shares), tuple(features), tuple(fills), tuple(fits), dict(about or {}))
