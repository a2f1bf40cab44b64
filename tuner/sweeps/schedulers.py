"""Schedulers: Ray's own, one bracket per group of runs, since unlike models must not compete."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.override import near

METRIC, TIME = "objective", "step"
RIVALS = 3
"""Trials of its group that must have come as far before the median may stop one."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A run as brackets know it."""

    trial_id: str


@dataclass(frozen=True, slots=True)
class RayScheduler:
    """One of Ray's schedulers: its name, its reason for a stop, how it takes an old report."""

    name: str
    make: Callable[[], TrialScheduler]
    why: str
    """Why it stops a run: a clause that the run's group completes."""
    replay: Callable[[Any, Entrant, dict[str, Any]], object]
    """Gives a bracket a report from before this process, without asking for a decision."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a scheduler may stop runs."""

    max_steps: int
    """Updates of the longest run."""
    grace_steps: int
    """Updates before which it stops none."""
    reduction_factor: float
    """It keeps one in so many."""


class BracketPerGroup(FIFOScheduler):
    """Gives each group of runs a scheduler of its own and keeps the reason of each stop.

    Brackets know a trial by its run id, since Ray names it anew in every process. History is
    replayed with `replay`, since Ray restores no scheduler after a crash.
    """

    def __init__(self, scheduler: RayScheduler, *, groups: Mapping[str, Hashable]):
        """groups is {run id: group}, which a reason names as it prints: `size 32`."""
        super().__init__()
        self._scheduler, self._groups = scheduler, groups
        self._brackets: dict[Hashable, TrialScheduler] = {}
        self.reasons: dict[str, str] = {}

    def _place(self, run_id: str) -> tuple[TrialScheduler, Any]:
        """The bracket of a run, and the run as a trial."""
        group = self._groups[run_id]
        if group not in self._brackets:
            self._brackets[group] = self._scheduler.make()
        return self._brackets[group], Entrant(run_id)

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
                f"{self._scheduler.name} at step {result[TIME]}: objective {result[METRIC]:.4g} "
                f"{self._scheduler.why} of {self._groups[run_id]}"
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
        nobody: Any = None  # No Tune controller yet; neither scheduler asks it.
        bracket.on_trial_add(nobody, entrant)
        last = 0
        for report in reports:
            self._scheduler.replay(bracket, entrant, report)
            last = report[TIME]
        if end is not None and end[TIME] > last:  # Else the bracket itself ended it there.
            bracket.on_trial_complete(nobody, entrant, end)

    def debug_string(self) -> str:
        """Name and brackets, for Ray's log."""
        return f"{self._scheduler.name} in {len(self._brackets)} brackets"


def asha(pace: Pace) -> RayScheduler:
    """Asynchronous successive halving (Li et al. 2020): rungs at grace_steps x
    reduction_factor^k updates."""
    return RayScheduler(
        "ASHA",
        lambda: AsyncHyperBandScheduler(
            time_attr=TIME,
            metric=METRIC,
            mode="min",
            max_t=pace.max_steps,
            grace_period=pace.grace_steps,
            reduction_factor=pace.reduction_factor,
        ),
        "was not among the best",
        lambda bracket, entrant, report: bracket.on_trial_result(None, entrant, report),
    )


def median(pace: Pace) -> RayScheduler:
    """Stops a run whose best objective is above the median of the others' running means (Golovin
    et al. 2017, section 3.2.2)."""
    return RayScheduler(
        "median rule",
        lambda: MedianStoppingRule(
            time_attr=TIME,
            metric=METRIC,
            mode="min",
            grace_period=pace.grace_steps,
            min_samples_required=RIVALS,
            # Never pauses: a paused trial would need Ray's checkpoints.
            min_time_slice=math.inf,  # pyright: ignore[reportArgumentType]
        ),
        "was never below the median",
        # It takes a report down without judging; asked again, it fails on those that it stopped.
        lambda bracket, entrant, report: bracket.on_trial_complete(None, entrant, report),
    )


SCHEDULERS: dict[str, Callable[[Pace], RayScheduler] | None] = {
    "none": None,
    "asha": asha,
    "median": median,
}
"""Schedulers by name; none lets every run train to its end."""


def named_scheduler(name: str) -> Callable[[Pace], RayScheduler] | None:
    """Returns what SCHEDULERS has by a name; ValueError, with the nearest, for another."""
    if name == "pbt":
        raise ValueError(
            "scheduler must not be pbt: it changes learning rates inside a run and copies weights "
            "between runs, so that none is the one that its config and id say; use asha or median."
        )
    if name not in SCHEDULERS:
        raise ArgumentError(
            Argument("scheduler"),
            f" must be one of {', '.join(SCHEDULERS)}, got {name!r}.{near(name, SCHEDULERS)}",
        )
    return SCHEDULERS[name]


def make_scheduler(
    name: str,
    *,
    groups: Mapping[str, Hashable],
    max_steps: int,
    grace_steps: int,
    reduction_factor: float,
) -> BracketPerGroup | None:
    """Returns the scheduler of a name, or None for `none` (first in, first out).

    It has a bracket for each of groups (by run id); max_steps and grace_steps count updates.
    Raises ValueError for values out of range.
    """
    scheduler = named_scheduler(name)
    if scheduler is None:
        return None
    if not 1 <= grace_steps <= max_steps:
        raise ValueError(
            f"grace_steps must be from 1 to the {max_steps} steps of a run, got {grace_steps}."
        )
    if not 1 < reduction_factor < math.inf:
        raise ValueError(f"reduction_factor must be above 1, got {reduction_factor:g}.")
    pace = Pace(max_steps, grace_steps, reduction_factor)
    return BracketPerGroup(scheduler(pace), groups=groups)
