"""The driver's side of a sweep: one Ray Tune callback that writes outcomes and tells the others."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from foretune.redaction import redacted
from foretune.tuner.records.outcome_json import RunEnd, Times
from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.sweeps.trainable import Trial
from foretune.tuner.training.outcome import Outcome


class Listener(Protocol):
    """What follows trials: a tracker. Its methods return at once and never raise."""

    def trial_started(self, run_id: str) -> None:
        """A trial started or went on."""
        ...

    def trial_ended(self, run_id: str) -> None:
        """A trial has its outcome.json."""
        ...


class Driver(tune.Callback):
    """Writes `outcome.json` of every trial that ends; tells progress and the listeners."""

    def __init__(
        self,
        runs_dir: Path,
        *,
        progress: Progress,
        trials: Mapping[str, Trial],
        labels: Mapping[str, str],
        listeners: tuple[Listener, ...],
        stop_reasons: Mapping[str, str],
        tick: Any,
    ):
        self._runs_dir, self._progress = runs_dir, progress
        self._trials, self._labels = trials, labels
        self._listeners, self._stop_reasons, self._tick = listeners, stop_reasons, tick
        self.outcomes: dict[str, str] = {}

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its callbacks for a restore that is never asked for.

    def on_trial_start(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial has a place to run."""
        self._tick()
        run_id = self._trial(trial).run_id
        self._progress.started(run_id)
        for listener in self._listeners:
            listener.trial_started(run_id)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[RayTrial],
        trial: RayTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """A trial reported."""
        self._tick()
        ours = self._trial(trial)
        self._progress.reported(ours.run_id, result["step"] / ours.run.steps)

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial ended by itself or was stopped by the scheduler."""
        result, ours = trial.last_result or {}, self._trial(trial)
        outcome: Outcome | None = result.get("outcome")
        if outcome is None:
            reason = self._stop_reasons.get(ours.run_id)
            if reason is None:
                return  # Interrupted: unfinished, for resume.
            outcome = _from_result("stopped", reason, result)
        self._end(ours, outcome, result)

    def on_trial_error(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial's worker died more often than it may."""
        result, ours = trial.last_result or {}, self._trial(trial)
        lines = [line for line in str(trial.get_pickled_error() or "").splitlines() if line.strip()]
        reason = redacted(f"the worker died: {lines[-1].strip() if lines else 'no message'}")
        self._end(ours, _from_result("failed", reason, result), result)

    def _trial(self, trial: RayTrial) -> Trial:
        return self._trials[trial.config["run_id"]]

    def _end(self, trial: Trial, outcome: Outcome, result: Mapping[str, Any]) -> None:
        opened, started = result.get("opened", (None, None))
        times = Times(opened=opened, started=started, ended=time.time())
        RunEnd.of(trial.run_id, outcome, times).write(self._runs_dir / trial.run_id)
        self.outcomes[trial.run_id] = outcome.outcome
        self._progress.ended(trial.run_id, self._labels[trial.run_id], outcome)
        for listener in self._listeners:
            listener.trial_ended(trial.run_id)


def _from_result(outcome: str, reason: str, result: Mapping[str, Any]) -> Outcome:
    return Outcome(
        outcome=outcome,
        step=result.get("step", 0),
        reason=reason,
        loss_at_init=result.get("loss_at_init"),
        final_val_loss=result.get("val_loss"),
        seconds=result.get("train_seconds", 0.0),
        data_sha256=result.get("data_sha256", ""),
        reference_loss=result.get("reference_loss"),
        forecast=result.get("forecast"),
    )
