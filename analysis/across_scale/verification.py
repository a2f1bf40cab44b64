"""Was a forecast right, now that its size was run?"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from foretune.analysis.across_scale.prediction import Prediction, Source, Stability
from foretune.analysis.measures.critical_lr import critical_table
from foretune.analysis.measures.crossing import Where
from foretune.analysis.records.families import held_constant, select
from foretune.analysis.records.load import Records, load
from foretune.analysis.stats.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Verification:
    """What the size of a forecast did once it was run."""

    measured: float
    """Geometric mean of the critical learning rate over the seeds that crossed inside the grid."""
    measured_low: float
    measured_high: float
    n_seeds: int
    ratio: float
    """Forecast / measured."""
    verdict: Verdict
    """Whether the measured critical learning rate lies in the forecast's interval."""
    at_lr: Verdict
    """Whether `stable` or `unstable` was right; that cannot be decided where nothing was claimed or
    measured."""
    sentence: str

    def row(self) -> dict[str, Any]:
        """As a table has it."""
        confirmed = self.verdict is Verdict.HOLDS
        return {
            "measured": self.measured,
            "measured_low": self.measured_low,
            "measured_high": self.measured_high,
            "n_seeds": self.n_seeds,
            "ratio": self.ratio,
            "inside_interval": confirmed,
            "confirmed": confirmed,
            "verdict_held": self.at_lr.column,
            "status": _word(self.verdict),
            "sentence": self.sentence,
        }


def _word(verdict: Verdict) -> str:
    return verdict.choose("confirmed", "refuted", str(verdict))


def verify(prediction: Prediction, source: Source) -> Verification:
    """The forecast against runs of the size that it was about, read in the same way."""
    records = source if isinstance(source, Records) else load(source)
    if not math.isfinite(prediction.critical_lr):
        return _cannot_tell(prediction, "the forecast itself could not tell")
    trials = select(records.trials, prediction.family_values)
    trials = trials[np.isclose(trials["n_params"], prediction.n_params, rtol=0.01)]
    differs = _differences(prediction, trials)
    if differs:
        return _cannot_tell(
            prediction, f"these runs are not the setting that was forecast: {differs}"
        )
    table = critical_table(
        trials,
        records.telemetry,
        threshold=prediction.threshold,
        signal=prediction.signal,
        window=prediction.window,
    )
    if table.empty:
        return _cannot_tell(
            prediction,
            f"{records.directory} holds no ended run of {prediction.family} at "
            f"{prediction.n_params:,.0f} parameters",
        )
    crossed = table[table["status"] == Where.CROSSED]
    if crossed.empty:
        return _bounded(prediction, float(table["low"].max()), float(table["high"].min()))
    return _compared(prediction, crossed)


def _differences(prediction: Prediction, trials: pd.DataFrame) -> str:
    """The conditions in which the runs depart from those of the forecast."""
    found = held_constant(trials)
    parts = [
        f"{name} {found.get(name, 'mixed')} instead of {value}"
        for name, value in prediction.held_constant.items()
        if len(trials) and found.get(name, "mixed") != value
    ]
    return ", ".join(parts)


def _compared(prediction: Prediction, crossed: pd.DataFrame) -> Verification:
    measured = float(10 ** np.log10(crossed["critical_lr"].to_numpy(float)).mean())
    inside = prediction.low <= measured <= prediction.high
    ratio = prediction.critical_lr / measured
    seeds = "1 seed" if len(crossed) == 1 else f"{len(crossed)} seeds"
    verdict = Verdict.of(inside, not inside)
    held, about = _at_lr(prediction, measured, measured)
    sentence = (
        f"{_word(verdict).capitalize()}: at {prediction.n_params:,.0f} parameters the "
        f"critical learning rate was forecast at {_forecast(prediction)} and measured at "
        f"{measured:.3g} ({seeds}). The forecast was {abs(ratio - 1):.0%} too "
        f"{'high' if ratio >= 1 else 'low'}, and the measurement lies "
        f"{'inside' if inside else 'outside'} its interval.{about}"
    )
    return Verification(
        measured=measured,
        measured_low=float(crossed["low"].min()),
        measured_high=float(crossed["high"].max()),
        n_seeds=len(crossed),
        ratio=ratio,
        verdict=verdict,
        at_lr=held,
        sentence=sentence,
    )


def _bounded(prediction: Prediction, low: float, high: float) -> Verification:
    """The verdict where the grid only says on which side the crossing lies."""
    if not (low > prediction.high or high < prediction.low):
        known = [f"above {low:.3g}"] if low > 0 else []
        known += [f"below {high:.3g}"] if math.isfinite(high) else []
        where = f"lies {' and '.join(known)}" if known else "can't be told"
        reason = f"the runs only show that the critical learning rate {where}, not whether it lies "
        reason += f"inside the forecast's interval {prediction.low:.3g} to {prediction.high:.3g}"
        return _cannot_tell(prediction, reason, low, high)
    side = f"above {low:.3g}" if low > prediction.high else f"below {high:.3g}"
    held, about = _at_lr(prediction, low, high)
    sentence = (
        f"{_word(Verdict.FAILS).capitalize()}: at {prediction.n_params:,.0f} parameters the "
        f"critical learning rate was forecast at {_forecast(prediction)}, and it "
        f"lies {side}.{about}"
    )
    nan = math.nan
    return Verification(nan, low, high, 0, nan, Verdict.FAILS, held, sentence)


def _cannot_tell(
    prediction: Prediction, reason: str, low: float = math.nan, high: float = math.nan
) -> Verification:
    nan = math.nan
    held, about = _at_lr(prediction, low, high)
    sentence = f"Cannot tell: {reason}.{about}"
    return Verification(nan, low, high, 0, nan, Verdict.CANNOT_TELL, held, sentence)


def _forecast(prediction: Prediction) -> str:
    return f"{prediction.critical_lr:.3g} ({prediction.low:.3g} to {prediction.high:.3g})"


def _at_lr(prediction: Prediction, low: float, high: float) -> tuple[Verdict, str]:
    """Whether the verdict on one learning rate held, given bounds on the critical one."""
    if prediction.lr is None or prediction.verdict not in (Stability.STABLE, Stability.UNSTABLE):
        return Verdict.CANNOT_TELL, ""
    if low >= prediction.lr:
        found = Stability.STABLE
    elif high <= prediction.lr:
        found = Stability.UNSTABLE
    else:
        return Verdict.CANNOT_TELL, ""
    right = found is prediction.verdict
    return Verdict.of(right, not right), (
        f" At learning rate {prediction.lr:g} it was forecast {prediction.verdict} and was {found}."
    )
