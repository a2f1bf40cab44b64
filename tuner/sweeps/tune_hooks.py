"""Where Ray Tune is made to ask the driver, and to keep quiet; it has a setting for neither."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.air._internal import usage
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as RayTrial


@contextmanager
def recoveries(goes_on: Callable[[RayTrial], bool]) -> Iterator[None]:
    """Within its block the driver says whether a trial whose worker was lost goes on.

    Tune's own setting counts all losses of a trial, also those of spot nodes on which it got$
    further, and retries one that hung. And it doesn't ask, but fails the trial, where the worker
    was lost while the trial waited for its start on it: handed on from another trial, say. Where
    Ray's memory monitor ended the worker (OutOfMemoryError), Tune would end the whole sweep.
    """
    ask, fail = RayTrial.should_recover, TuneController._process_trial_failure
    end_task = RayActorManager._actor_task_failed

    def as_a_lost_worker(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        if isinstance(exception, RayError) and not known:
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
        end_task(self, tracked_actor_task, exception)

    def fail_unless_it_goes_on(self: Any, trial: RayTrial, *rest: Any, **how: Any) -> None:
        if trial.status == RayTrial.PENDING:
            self._resetting_trials.discard(trial)  # Else it would wait for that for good.
            self._set_trial_status(trial, RayTrial.RUNNING)  # As Tune does where a start failed.
        fail(self, trial, *rest, **how)

    RayTrial.should_recover = lambda self: goes_on(self)
    TuneController._process_trial_failure = fail_unless_it_goes_on
    RayActorManager._actor_task_failed = as_a_lost_worker
    try:
        yield
    finally:
        RayTrial.should_recover = ask
        TuneController._process_trial_failure = fail
        RayActorManager._actor_task_failed = end_task


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Within its block Tune prints nothing of trials that failed: the driver has a line each.

    Nor does it load MLflow, Comet and W&B to count whose callbacks it was given, for statistics
    that nobody reads: a fifth of all that a driver computes until its first trial.
    """
    logger = logging.getLogger("ray.tune")
    before, count = logger.level, usage.tag_callbacks
    logger.setLevel(logging.CRITICAL)
    usage.tag_callbacks = lambda *_: False
    try:
        yield
    finally:
        logger.setLevel(before)
        usage.tag_callbacks = count


class EarlyEnd(tune.Stopper):
    """Ends all trials once there is a reason for it."""

    def __init__(self, *reasons: Callable[[], object]):
        self._reasons = reasons

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles it for a restore that is never asked for.

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Ends no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep ends."""
        return any(reason() for reason in self._reasons)
