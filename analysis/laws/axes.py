"""How the critical learning rate moves along axes other than width: depth, head dim, context,
batch, steps.

log10 critical LR = a + b log10 N + sum of c_i log10(axis_i / its usual value), by the regression of
`critical_law` with a prior of no effect on every c. N counts depth, so depth's own coefficient says
what depth does beyond adding parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.laws.laws import Estimate, reach
from foretune.analysis.measures.crossing import critical_lr
from foretune.analysis.measures.signal import SIGNAL, read_signal
from foretune.analysis.stats.regression import Posterior, Prior, regress
from foretune.analysis.stats.status import Status
from foretune.argument_error import Argument, ArgumentError

AXES: Final = ("model.depth", "model.head_dim", "data.sequence_length", "batch_size", "steps")
PRIOR_SD: Final = 0.5
"""Of a coefficient of an axis, dex per decade, around no effect."""
SLOPE: Final = (-0.5, 0.25)
"""Prior mean and deviation of the slope in N, as in `critical_law`."""


@dataclass(frozen=True, slots=True)
class AxisLaw:
    """A fitted law over N and the axes that varied."""

    axes: tuple[str, ...]
    usual: Mapping[str, float]
    """The value of each axis at which its term is 0: the commonest one."""
    ranges: Mapping[str, tuple[float, float]]
    """Fitted range of each axis, outside which the law can't tell."""
    smallest: float
    largest: float
    posterior: Posterior
    n_crossings: int
    status: Status

    def predict(
        self, n_params: float, settings: Mapping[str, float], level: float = 0.9
    ) -> Estimate:
        """Returns the critical learning rate of a run; settings has a value for every axis, the
        usual one where it is left out."""
        for axis in self.axes:
            low, high = self.ranges[axis]
            value = float(settings.get(axis, self.usual[axis]))
            if not low <= value <= high:
                nan = math.nan
                why = f"{axis} {value:g} lies outside the fitted {low:g} to {high:g}"
                return Estimate(nan, nan, nan, Status.cannot_tell(why))
        status = reach(n_params, self.smallest, self.largest)
        if not status.can_tell:
            return Estimate(math.nan, math.nan, math.nan, status)
        row = _row(n_params, settings, self.axes, self.usual)
        median, low, high = (float(10**x) for x in self.posterior.predict(row, level))
        return Estimate(median, low, high, status)

    def effects(self, level: float = 0.9) -> pd.DataFrame:
        """Returns each axis' coefficient, dex of learning rate per decade, with its interval."""
        rows = [
            dict(zip(("effect", "low", "high"), self.posterior.coefficient(i, level), strict=True))
            for i in range(1, len(self.axes) + 2)
        ]
        return pd.DataFrame(rows, index=["n_params", *self.axes])


def axis_crossings(
    trials: pd.DataFrame, telemetry: pd.DataFrame, *, threshold: float
) -> pd.DataFrame:
    """Returns the critical learning rate of every size, seed and setting of the axes.

    trials are of one family but for the axes. Columns: n_params, the axes, seed, critical_lr, low,
    high (bounds where the signal didn't cross inside the grid).
    """
    cells = read_signal(trials, telemetry, signal=SIGNAL)
    settings = trials[["run_id", *AXES]]
    rows = []
    keys = ["n_params", "seed", *AXES]
    for key, group in cells.merge(settings, on="run_id").groupby(keys):
        found = critical_lr(group, threshold=threshold, smooth=True)
        bounds = {"critical_lr": found.value, "low": found.low, "high": found.high}
        rows.append(dict(zip(keys, key, strict=True)) | bounds)
    return pd.DataFrame(rows, columns=[*keys, "critical_lr", "low", "high"])


def predict_at(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    n_params: float,
    settings: Mapping[str, float],
    threshold: float,
    level: float = 0.9,
) -> Estimate:
    """Returns the critical learning rate at a size and other values of the axes.

    trials are of one family but for the axes. Raises ValueError for an axis that there is none of;
    an axis that had one value only is a `cannot tell`.
    """
    for axis, value in settings.items():
        if axis not in AXES:
            raise ArgumentError(Argument("at"), f" must name one of {', '.join(AXES)}, got {axis}.")
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ArgumentError(
                Argument("at"), f" {axis} must be a positive number, got {value!r}."
            )
    crossings = axis_crossings(trials, telemetry, threshold=threshold)
    try:
        law = fit_axes(crossings)
    except ValueError as error:
        return Estimate(math.nan, math.nan, math.nan, Status.cannot_tell(str(error)))
    for axis, value in settings.items():
        if axis not in law.axes and not math.isclose(value, law.usual[axis]):
            why = f"{axis} was {law.usual[axis]:g} wherever the signal crossed; vary it"
            return Estimate(math.nan, math.nan, math.nan, Status.cannot_tell(why))
    return law.predict(n_params, settings, level)


def fit_axes(crossings: pd.DataFrame) -> AxisLaw:
    """Returns the law through `axis_crossings`; ValueError where fewer than two sizes crossed."""
    value = crossings["critical_lr"].to_numpy(float)
    known = crossings[np.isfinite(value) & (value > 0)]
    if known["n_params"].nunique() < 2:
        raise ValueError(
            f"a law over axes needs crossings at two sizes, got {known['n_params'].nunique()}; "
            f"widen the grid of learning rates or add sizes."
        )
    axes = tuple(axis for axis in AXES if known[axis].nunique() > 1)
    usual = {axis: float(known[axis].mode().iloc[0]) for axis in AXES}
    design = np.stack([_row(row["n_params"], row, axes, usual) for row in known.to_dict("records")])
    target = np.log10(known["critical_lr"].to_numpy(float))
    prior = Prior(
        mean=(-2.0, SLOPE[0], *(0.0 for _ in axes)),
        sd=(10.0, SLOPE[1], *(PRIOR_SD for _ in axes)),
        noise=0.06,
        worth=4.0,
        group_share=0.25,
    )
    groups = pd.factorize(known[["n_params", *AXES]].apply(tuple, axis=1))[0]
    return AxisLaw(
        axes=axes,
        usual=usual,
        ranges={a: (float(known[a].min()), float(known[a].max())) for a in axes},
        smallest=float(known["n_params"].min()),
        largest=float(known["n_params"].max()),
        posterior=regress(design, target, target, groups, prior),
        n_crossings=len(known),
        status=Status.ok(f"{len(known)} crossings over {', '.join(axes) or 'no axis'}"),
    )


def _row(
    n_params: float,
    settings: Mapping[str, float],
    axes: tuple[str, ...],
    usual: Mapping[str, float],
) -> np.ndarray:
    terms = [math.log10(float(settings.get(axis, usual[axis])) / usual[axis]) for axis in axes]
    return np.array([1.0, math.log10(n_params) - CENTRE, *terms])


CENTRE: Final = 5.0
"""log10 N at which the intercept is read."""
