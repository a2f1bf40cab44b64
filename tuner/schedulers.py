"""Schedulers: Ray's own, one bracket per group of runs, since unlike models must not compete."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    TrialScheduler,
)

SCHEDULERS = ("none", "asha")
METRIC, TIME = "objective", "step"


class BracketPerGroup(FIFOScheduler):
    """Gives each group of runs a scheduler of its own and keeps the reason of each stop.

    Brackets know a trial by its run id, since Ray names it anew in every process. History is
    replayed with `replay`, since Ray restores no scheduler after a crash.
    """

    def __init__(
        self, name: str, make: Callable[[], TrialScheduler], *, groups: Mapping[str, Hashable]
    ):
        """groups is {run id: group}, which a reason names as it prints: `size 32`."""
        super().__init__()
        self._name, self._make, self._groups = name, make, groups
        self._brackets: dict[Hashable, TrialScheduler] = {}
        self.reasons: dict[str, str] = {}

    def _place(self, run_id: str) -> tuple[TrialScheduler, Any]:
        """The bracket of a run, and the run as a trial: brackets read its id alone."""
        group = self._groups[run_id]
        if group not in self._brackets:
            self._brackets[group] = self._make()
        return self._brackets[group], SimpleNamespace(trial_id=run_id)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The brackets know metric and mode from the start."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Enters the trial in its group's bracket."""
        bracket, entrant = self._place(trial.config["run_id"])
        bracket.on_trial_add(tune_controller, entrant)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Asks the bracket; a stop is noted with its reason."""
        run_id = trial.config["run_id"]
        bracket, entrant = self._place(run_id)
        decision = bracket.on_trial_result(tune_controller, entrant, result)
        if decision == TrialScheduler.STOP:
            self.reasons[run_id] = (
                f"{self._name} at step {result[TIME]}: objective {result[METRIC]:.4g} was not "
                f"among the best of {self._groups[run_id]}"
            )
        return decision

    def on_trial_complete(
        self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        """Tells the bracket."""
        bracket, entrant = self._place(trial.config["run_id"])
        bracket.on_trial_complete(tune_controller, entrant, result)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Tells the bracket."""
        bracket, entrant = self._place(trial.config["run_id"])
        bracket.on_trial_error(tune_controller, entrant)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        """Tells the bracket."""
        bracket, entrant = self._place(trial.config["run_id"])
        bracket.on_trial_remove(tune_controller, entrant)

    def replay(
        self, run_id: str, reports: Iterable[dict[str, Any]], end: dict[str, Any] | None = None
    ) -> None:
        """Shows the bracket what a run reported before this process, and its end if it had one.

        A run without an end may go on as a trial: its rungs up to here hold it already.
        """
        bracket, entrant = self._place(run_id)
        nobody: Any = None  # No Tune controller yet; Ray's ASHA never asks it.
        bracket.on_trial_add(nobody, entrant)
        for report in reports:
            bracket.on_trial_result(nobody, entrant, report)
        if end is not None:
            bracket.on_trial_complete(nobody, entrant, end)

    def debug_string(self) -> str:
        """Name and brackets, for Ray's log."""
        return f"{self._name} in {len(self._brackets)} brackets"


def make_scheduler(
    name: str,
    *,
    groups: Mapping[str, Hashable],
    max_steps: int,
    grace_steps: int,
    reduction_factor: float,
) -> BracketPerGroup | None:
    """Returns the scheduler of a name, or None for `none` (first in, first out).

    asha: asynchronous successive halving (Li et al. 2020), rungs at grace_steps x
    reduction_factor^k optimizer updates, a bracket for each of groups (by run id). Raises
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
    return BracketPerGroup(
        "ASHA",
        lambda: AsyncHyperBandScheduler(
            time_attr=TIME,
            metric=METRIC,
            mode="min",
            max_t=max_steps,
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        ),
        groups=groups,
    )
