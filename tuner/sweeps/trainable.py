"""The Ray Tune trainable: one run as a class that is reset completely and so reuses its actor.

A step of it trains up to the next validation and reports a finite objective. Rows go straight to
the run's directory; checkpoints are ours, so that a retry after a lost node and a resume by the
user take the same way.
"""

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from ray import tune

from foretune.redaction import redacted
from foretune.tuner.config.run import Run
from foretune.tuner.planning.forecast_stop import ForecastStop, judge_in
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.training.checkpoint import checkpoint_step
from foretune.tuner.training.outcome import NO_LOSS, Outcome
from foretune.tuner.training.train import Training

LOCK_SECONDS = 30.0
"""How long a writer waits for another one of the same run to let go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a worker needs to know of one run."""

    run_id: str
    run: Run
    size: int
    directory: str
    """The run's directory, on a file system that every node sees."""
    threads: int = 1
    """CPU threads of the trial."""
    gpus: float = 0.0
    """GPUs that Ray has set aside for it; 0 trains on the CPU."""
    checkpoint_seconds: float = 10.0
    """Least time between checkpoints."""
    keep_models: bool = False
    """Whether the run keeps its weights once it has finished."""
    stop: ForecastStop | None = None
    """How a forecast may end it; none runs it to its end."""
    data_sha256: str = ""
    """Hash of the tokens that the driver read; the worker must see the same. Empty: not checked."""


class Trials(Protocol):
    """Where a worker finds its trials by run id."""

    def __getitem__(self, run_id: str, /) -> Trial: ...


class RunTrainable(tune.Trainable):
    """Trains the `Trial` whose id its config names under `run_id`."""

    _training: Training | None = None
    _metrics: MetricsFile | None = None
    _lock: FileLock | None = None

    def setup(self, config: dict[str, Any], trials: Trials | None = None) -> None:
        """Takes note of the trial; its files are opened by its first step."""
        assert trials is not None
        self._trial = trials[config["run_id"]]
        self._error, self._opened = "", (None, None)
        self._fresh = True

    def _start(self) -> None:
        """Opens the run. Not in `setup`: Tune may set an actor up for a trial that another one
        runs, and such an actor must not touch the trial's files."""
        started, trial = time.time(), self._trial
        self._fresh, self._last_checkpoint = False, time.monotonic()
        torch.set_num_threads(max(1, int(trial.threads)))
        try:
            self._open(Path(trial.directory), trial)
        except Exception as error:
            self._error = self._note(error)
        self._opened = (started, time.time())

    def _open(self, directory: Path, trial: Trial) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(directory / ".writer.lock", timeout=LOCK_SECONDS)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(
                f"Run {trial.run_id} must have one writer, and another holds {directory}; "
                f"wait for it or end it."
            ) from None
        self._checkpoint = directory / "checkpoint"
        step = checkpoint_step(self._checkpoint)
        self._metrics = MetricsFile(directory / "metrics.jsonl", keep_below=step or 0)
        self._training = Training(
            trial.run,
            self._metrics,
            device="cuda" if trial.gpus else "cpu",
            restore=self._checkpoint if step is not None else None,
            judge=judge_in(directory, trial.run, trial.stop),
        )
        seen = self._training.stream.corpus.sha256
        if trial.data_sha256 and seen != trial.data_sha256:
            raise ValueError(
                f"The text of data.name={trial.run.data.name} must be the same on every node, got "
                f"another here than at the driver; use the same Python and the same files."
            )

    def step(self) -> dict[str, Any]:
        """Trains to the next validation; reports where the run stands."""
        if self._fresh:
            self._start()
        training = self._training
        if training is not None and not self._error:
            try:
                training.advance()
                self._keep(training)
            except Exception as error:
                self._error = self._note(error)
        return self._report()

    def _keep(self, training: Training) -> None:
        assert self._metrics is not None
        self._metrics.flush()
        outcome = training.outcome
        if outcome is not None:
            if self._trial.keep_models and outcome.outcome == "finished":
                training.save_model(self._checkpoint)
            return
        due = time.monotonic() - self._last_checkpoint >= self._trial.checkpoint_seconds
        if due:
            training.save(self._checkpoint)
            self._last_checkpoint = time.monotonic()

    def _report(self) -> dict[str, Any]:
        training, outcome = self._training, None
        if self._error:
            outcome = Outcome(
                outcome="failed",
                step=training.step if training else 0,
                reason=self._error,
                loss_at_init=training.loss_at_init if training else None,
                final_val_loss=training.val_loss if training else None,
                seconds=training.seconds if training else 0.0,
                forecast=self._forecast,
            )
        elif training is not None:
            outcome = training.outcome
        standing = outcome or training
        return {
            "step": standing.step if standing else 0,
            "objective": standing.objective if standing else NO_LOSS,
            "loss_at_init": training.loss_at_init if training else None,
            "val_loss": training.val_loss if training else None,
            "train_seconds": training.seconds if training else 0.0,
            "data_sha256": training.stream.corpus.sha256 if training else "",
            "reference_loss": training.stream.corpus.reference_loss if training else None,
            "forecast": self._forecast,
            "opened": self._opened,
            "outcome": outcome,
            "done": outcome is not None,
        }

    @property
    def _forecast(self) -> Mapping[str, Any] | None:
        judge = self._training.judge if self._training else None
        return judge.forecast if judge else None

    def _note(self, error: Exception) -> str:
        """Keeps the traceback beside the run; returns the error as one line."""
        path = Path(self._trial.directory) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redacted("".join(traceback.format_exception(error))))
        return redacted(f"{type(error).__name__}: {' '.join(str(error).split())}")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Forgets the old run completely and opens the new one in the same process."""
        self._close(keep_state=False)
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Closes the run; one that was interrupted keeps its state for `resume`."""
        self._close(keep_state=True)

    def _close(self, *, keep_state: bool) -> None:
        training, metrics = self._training, self._metrics
        if training is not None and training.outcome is None and not self._error:
            if keep_state:
                if metrics is not None:
                    metrics.flush()  # A checkpoint never runs ahead of its rows.
                training.save(self._checkpoint)
            training.end("stopped", "")
        if metrics is not None:
            metrics.close()
        if self._lock is not None:
            self._lock.release()
        self._training = self._metrics = self._lock = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Not used: checkpoints are the run's own, so that they outlive Ray's experiment state."""
        raise RuntimeError(
            f"Ray's checkpoints are switched off here, asked for in {checkpoint_dir}."
        )
