"""The driver's side of a sweep: one Ray Tune callback that writes outcomes and tells the others."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from foretune.redaction import redacted
from foretune.tuner.cluster import local_ray
from foretune.tuner.records.outcome_json import RunEnd, Times
from foretune.tuner.records.storage import patience, storage_error, storage_sentence
from foretune.tuner.sweeps.lost_workers import LostWorkers, last_failure
from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.sweeps.silence import Silence
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
        timeout_s: float = 0.0,
    ):
        self._runs_dir, self._progress = runs_dir, progress
        self._trials, self._labels = trials, labels
        self._listeners, self._stop_reasons, self._tick = listeners, stop_reasons, tick
        self._lost, self._silence = LostWorkers(runs_dir, timeout_s), Silence()
        self.reported = False
        """Whether any trial has: else there is nothing to keep of them."""
        self.storage = ""
        """What failed of the storage, in a sentence: the sweep ends with it."""
        self.ray_ended = False
        """Whether Ray itself has ended, which is no trial's failure: they are unfinished."""

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its callbacks for a restore that is never asked for.

    def on_trial_start(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial has a place to run."""
        self._tick()
        run_id = self._trial(trial).run_id
        self._progress.started(run_id)
        self._silence.started(run_id)
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
        self.reported = True
        ours = self._trial(trial)
        self._lost.reported(ours.run_id, result["step"])
        self._silence.reported(ours.run_id)
        self._progress.reported(ours.run_id, result["step"] / ours.run.steps)

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        """Tune has waited for an event, for a tenth of a second at most."""
        for silent in self._silence.overdue():
            self._progress.silent(self._labels[silent.run_id], silent.seconds, silent.usual)

    def on_trial_recover(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial whose worker was lost waits for another."""
        self._silence.ended(self._trial(trial).run_id)

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial ended by itself or was stopped by the scheduler."""
        result, ours = trial.last_result or {}, self._trial(trial)
        outcome: Outcome | None = result.get("outcome")
        self.storage = self.storage or result.get("storage", "")
        if outcome is None:
            reason = self._stop_reasons.get(ours.run_id)
            if reason is None:
                return  # Interrupted: unfinished, for resume.
            outcome = _from_result("stopped", reason, result)
        self._end(ours, outcome, result)

    def on_trial_error(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """A trial's worker was lost, and it doesn't go on."""
        _forget_pickle(trial)
        if self._ray_has_ended():
            return  # Tune doesn't ask about a trial that it was just starting again.
        result, ours = trial.last_result or {}, self._trial(trial)
        reason = redacted(self._lost.reason(ours.run_id))
        self._end(ours, _from_result("failed", reason, result), result)

    def goes_on(self, trial: RayTrial) -> bool:
        """Whether a trial goes on from its checkpoint, now that its worker was lost."""
        self._tick()
        _forget_pickle(trial)
        if self._ray_has_ended():
            return False
        text = last_failure(Path(trial.error_file)) if trial.error_file else ""
        ours = self._trial(trial)
        return self._lost.goes_on(ours.run_id, ours.run, text)

    def _ray_has_ended(self) -> bool:
        self.ray_ended = self.ray_ended or local_ray.has_ended()
        return self.ray_ended

    def _trial(self, trial: RayTrial) -> Trial:
        return self._trials[trial.config["run_id"]]

    def _end(self, trial: Trial, outcome: Outcome, result: Mapping[str, Any]) -> None:
        self._silence.ended(trial.run_id)
        opened, started = result.get("opened", (None, None))
        times = Times(opened=opened, started=started, ended=time.time())
        end = RunEnd.of(trial.run_id, outcome, times, result.get("rows"))
        if not self._written(end):
            return  # Unfinished: it goes on from its checkpoint when there is room.
        self._progress.ended(trial.run_id, self._labels[trial.run_id], outcome)
        for listener in self._listeners:
            listener.trial_ended(trial.run_id)

    def _written(self, end: RunEnd) -> bool:
        waits = patience()
        while not self.storage:
            try:
                end.write(self._runs_dir / end.run_id)
                return True
            except OSError as error:
                if storage_error(error) is None:
                    raise
                if next(waits, self) is not None:
                    self.storage = storage_sentence(error, self._runs_dir.parent)
        return False


def _forget_pickle(trial: RayTrial) -> None:
    """Keeps Tune from reading what it pickled of an error: code of whoever changed that file."""
    trial.run_metadata.pickled_error_filename = None


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
