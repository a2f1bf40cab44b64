"""The forecast of a watched run, from the rows that it has shown so far."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretune.analysis.stats.status import Status
from foretune.tuner.watch.step_verdict import StepVerdict

NO_FORECAST = "none"


class LiveForecast:
    """Judges the rows of one run; loads `analysis` only where there is a forecast."""

    def __init__(self, forecast: str | Path | None, *, false_stops: float):
        """Raises ValueError for a file that holds none, or isn't calibrated for false_stops."""
        self.noted: dict[str, Any] | None = None
        """What was forecast when the run would first have ended, as outcome.json has it."""
        self.peak = math.nan
        """Largest learning rate so far."""
        self._warmup: int | None = None
        self._rule = None
        if forecast is not None and str(forecast) == NO_FORECAST:
            return
        from foretune.analysis.inside_run.landmark import SHIPPED, read_landmarks
        from foretune.analysis.inside_run.stopping import StopRule

        model = read_landmarks(SHIPPED if forecast is None else Path(forecast))
        self._rule = StopRule({}, false_stops=false_stops, model=model)

    def warmup(self, lr: float, step: int) -> int | None:
        """Returns how many steps the learning rate has risen for; none while it still does."""
        if math.isfinite(lr) and not lr <= self.peak:
            self.peak, self._warmup = lr, None
        elif self._warmup is None and math.isfinite(lr):
            self._warmup = step
        return self._warmup

    def observe(
        self, step: int, row: Mapping[str, float], context: Mapping[str, Any]
    ) -> StepVerdict | None:
        """Takes in a row; returns the verdict, or None where it says nothing new."""
        rule = self._rule
        if rule is None:
            return StepVerdict(False, status=Status.cannot_tell("no forecast was asked for"))
        rule.context.update(context)
        found = rule.observe(step, row)
        if self.noted is not None:
            return None  # It stays: a run that goes on all the same is not asked again.
        problem = rule.horizon_problem()
        if problem:
            return StepVerdict(False, status=Status.cannot_tell(problem))
        if found is None:
            newest = rule.newest
            if newest is None:
                return None
            return StepVerdict(False, newest.probability, newest.reason, newest.status)
        from foretune.analysis.inside_run.stopping import noted

        self.noted = noted(found, threshold=rule.threshold, step=step, audited=False)
        return StepVerdict(True, found.probability, found.reason, found.status)
