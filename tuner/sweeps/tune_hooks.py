"""Where Ray Tune is made to ask the driver, and to keep quiet; it has a setting for neither."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from foretune.tuner.sweeps.driver import Driver


@contextmanager
def recoveries(goes_on: Callable[[RayTrial], bool]) -> Iterator[None]:
    """Within its block the driver says whether a trial whose worker was lost goes on.

    Tune's own setting counts all losses of a trial, also those of spot nodes on which it got
    further, and retries one that hung.
    """
    before = RayTrial.should_recover
    RayTrial.should_recover = lambda self: goes_on(self)
    try:
        yield
    finally:
        RayTrial.should_recover = before


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Within its block Tune prints nothing of trials that failed: the driver has a line each."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class EndOfAll(tune.Stopper):
    """Ends all trials once the driver says that the storage fails, or that Ray has ended."""

    def __init__(self, driver: Driver):
        self._driver = driver

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles it for a restore that is never asked for.

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Ends no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep ends."""
        return bool(self._driver.storage) or self._driver.ray_ended
