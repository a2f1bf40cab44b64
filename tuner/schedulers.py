"""Schedulers: Ray's own, one bracket per size, since models of different size must not compete."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    TrialScheduler,
)

SCHEDULERS = ("none", "asha")
METRIC, TIME = "objective", "step"


class BracketPerSize(FIFOScheduler):
    """Gives each rung of the ladder a scheduler of its own and keeps the reason of each stop.

    History is replayed with `replay`, since Ray restores no scheduler after a crash.
    """

    def __init__(self, name: str, make: Callable[[], TrialScheduler], *, sizes: Mapping[str, int]):
        super().__init__()
        self._name, self._make, self._sizes = name, make, sizes
        self._brackets: dict[int, TrialScheduler] = {}
        self.reasons: dict[str, str] = {}

    def _bracket(self, trial: Any) -> TrialScheduler:
        size = self._sizes[trial.config["run_id"]]
        if size not in self._brackets:
            self._brackets[size] = self._make()
        return self._brackets[size]

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The brackets know metric and mode from the start."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Enters the trial in its size's bracket."""
        self._bracket(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Asks the bracket; a stop is noted with its reason."""
        decision = self._bracket(trial).on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            run_id = trial.config["run_id"]
            self.reasons[run_id] = (
                f"{self._name} at step {result[TIME]}: objective {result[METRIC]:.4g} was not "
                f"among the best of size {self._sizes[run_id]}"
            )
        return decision

    def on_trial_complete(
        self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        """Tells the bracket."""
        self._bracket(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Tells the bracket."""
        self._bracket(trial).on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        """Tells the bracket."""
        self._bracket(trial).on_trial_remove(tune_controller, trial)

    def replay(self, trial: Any, results: Iterable[dict[str, Any]]) -> None:
        """Shows the bracket the results of a trial that ran before this process."""
        bracket = self._bracket(trial)
        bracket.on_trial_add(None, trial)  # type: ignore[arg-type]
        for result in results:
            bracket.on_trial_result(None, trial, result)  # type: ignore[arg-type]

    def debug_string(self) -> str:
        """Name and brackets, for Ray's log."""
        return f"{self._name} in {len(self._brackets)} brackets"


def make_scheduler(
    name: str,
    *,
    sizes: Mapping[str, int],
    max_steps: int,
    grace_steps: int,
    reduction_factor: float,
) -> BracketPerSize | None:
    """Returns the scheduler of a name, or None for `none` (first in, first out).

    asha: asynchronous successive halving (Li et al. 2020), rungs at grace_steps x
    reduction_factor^k optimizer updates, a bracket for each of sizes (by run id). Raises
    ValueError for values out of range.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}.")
    if name == "none":
        return None
    if not 1 <= grace_steps <= max_steps:
        raise ValueError(
            f"grace_steps must be from 1 to the {max_steps} steps of a run, got {grace_steps}."
        )
    if not 1 < reduction_factor < math.inf:
        raise ValueError(f"reduction_factor must be above 1, got {reduction_factor:g}.")
    return BracketPerSize(
        "ASHA",
        lambda: AsyncHyperBandScheduler(
            time_attr=TIME,
            metric=METRIC,
            mode="min",
            max_t=max_steps,
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        ),
        sizes=sizes,
    )
