"""Published early warnings as predictors: recorded series replayed through the packages themselves.

trainscope 1.8.1 and stabilityguard 0.3.0 are an optional extra:

    pip install -c constraints.txt -e ".[bench]"

Each peer is fed one value per step, as it would be live, from the first step of the history on. An
infinite reading is fed as 1e30: live, both treat what isn't finite before the detector sees it.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, Predictor, cannot_tell, rank
from foretune.analysis.stats.series import readings

INSTALL: Final = 'pip install -c constraints.txt -e ".[bench]"'


def absence(package: str) -> str:
    """A sentence on how to get a peer's package; empty where it is installed."""
    if importlib.util.find_spec(package) is not None:
        return ""
    return f"{package} isn't installed; {INSTALL}"


@dataclass(frozen=True, slots=True)
class TrainscopeCusum:
    """trainscope's default detector, Page's CUSUM on the robust z of a series, upward alarms only.

    As shipped it is two-sided, so that a falling loss alarms; its negative scores are left out,
    which is fair to it. P = s / (s + 6) of the largest upward score s so far, 0 without an alarm:
    its alarm is P >= 0.5. Unit: deviations, cumulated.
    """

    column: str = "loss"
    """Telemetry column that is replayed."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        missing = absence("trainscope")
        if missing:
            return cannot_tell(missing)
        detector = importlib.import_module("trainscope.core.detectors").ChangePointDetector()
        steps, values = readings(history, self.column)
        if len(values) <= detector.min_observations:
            return cannot_tell(f"{len(values)} values of {self.column}, it needs 31")
        scores = [detector.update(value) or 0.0 for value in values.tolist()]
        alarms = [(step, s) for step, s in zip(steps, scores, strict=True) if s > 0]
        if not alarms:
            return rank(0.0, f"no upward CUSUM alarm of {self.column}")
        largest = min(max(score for _, score in alarms), 1e30)
        reason = f"{len(alarms)} upward CUSUM alarms of {self.column}, first at {alarms[0][0]:.0f}"
        return rank(largest / (largest + detector.threshold), reason)


@dataclass(frozen=True, slots=True)
class TrainscopeCrossing:
    """trainscope's first crossing: 3 readings in a row above median + 3 * 1.4826 MAD of the first
    40.

    Shipped for the gradient norm and after the run, but causal. P is 1 once it has crossed.
    """

    column: str = "grad_norm"
    """Telemetry column that is replayed."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        missing = absence("trainscope")
        if missing:
            return cannot_tell(missing)
        first_crossing = importlib.import_module("trainscope.analysis").first_crossing_step
        steps, values = readings(history, self.column)
        if len(values) < 50:
            return cannot_tell(f"{len(values)} values of {self.column}, it needs 50")
        index: int | None = first_crossing(values.tolist())
        if index is None:
            return rank(0.0, f"{self.column} never crossed its start by 3 deviations")
        return rank(1.0, f"{self.column} crossed its start by 3 deviations at {steps[index]:.0f}")


@dataclass(frozen=True, slots=True)
class StabilityGuardSpike:
    """stabilityguard's SpikeDetector: the gradient norm over its moving average, alarm above 10.

    Live it watches the gradient at every module's output; recorded is the global norm alone, so
    that is replayed as one layer. P = r / (r + 10) of the largest ratio r after its warm-up, where
    the norm is above the 0.01 that it asks for: its alarm is P > 0.5. Unit: 1.
    """

    column: str = "grad_norm"
    """Telemetry column that is replayed."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        missing = absence("stabilityguard")
        if missing:
            return cannot_tell(missing)
        module = importlib.import_module("stabilityguard.core.spike_detector")
        detector = module.SpikeDetector()
        steps, norms = readings(history, self.column)
        if len(norms) <= detector.warmup_steps:
            return cannot_tell(f"{len(norms)} values of {self.column}, it needs 11")
        ratios, alarms = [], []
        for step, norm in zip(steps.tolist(), norms.tolist(), strict=True):
            spiked, _, averages = detector.check({self.column: norm}, set())
            counts = detector.step_count > detector.warmup_steps
            if counts and norm > module.MIN_SIGNIFICANT_NORM:
                ratios.append(norm / averages[self.column])
            alarms += [step] if spiked else []
        largest = max(ratios, default=0.0)
        first = f"first alarm at {alarms[0]:.0f}" if alarms else "no alarm"
        reason = f"{self.column} up to {largest:.3g} times its average, {first}"
        return rank(largest / (largest + detector.threshold), reason)


PEERS: Final[Mapping[str, Predictor]] = MappingProxyType(
    {
        "trainscope CUSUM, upward": TrainscopeCusum(),
        "trainscope grad-norm crossing": TrainscopeCrossing(),
        "stabilityguard spike": StabilityGuardSpike(),
    }
)
"""Published early warnings by name; each can't tell where its package isn't installed."""
