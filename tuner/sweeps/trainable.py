"""The Ray Tune trainable: one run as a class that is reset completely and so reuses its actor.

A step of it trains up to the next validation and reports a finite objective. Rows go straight to
the run's directory; checkpoints are ours, so that a retry after a lost node and a resume by the
user take the same way.
"""

import gc
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from ray import tune

from foretune.redaction import redacted
from foretune.tuner.config.run import Run
from foretune.tuner.planning.forecast_stop import ForecastStop, judge_in
from foretune.tuner.records.files import METRICS_FILE, MetricsFile
from foretune.tuner.records.restart import restart_of
from foretune.tuner.records.storage import patience, storage_error, storage_sentence
from foretune.tuner.sweeps.last_words import FaultFile, keep_error
from foretune.tuner.sweeps.micro_batch import halve, memory_error, micro_batch_of, note
from foretune.tuner.training.checkpoint import PREVIOUS_FILE
from foretune.tuner.training.outcome import NO_LOSS, Outcome
from foretune.tuner.training.own_code import ModelError, place
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
    timeout_s: float = 0.0
    """Seconds in which it must go on, else it is ended; 0 waits for ever."""
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
    _faults: FaultFile | None = None

    def setup(self, config: dict[str, Any], trials: Trials | None = None) -> None:
        """Takes note of the trial; its files are opened by its first step."""
        assert trials is not None
        self._trial = trials[config["run_id"]]
        self._error, self._failed_storage, self._opened = "", "", (None, None)
        self._fresh = True

    def _start(self) -> None:
        """Opens the run. Not in `setup`: Tune may set an actor up for a trial that another one
        runs, and such an actor must not touch the trial's files."""
        started, trial = time.time(), self._trial
        self._fresh, self._last_checkpoint, self._saved_step = False, time.monotonic(), -1
        torch.set_num_threads(max(1, int(trial.threads)))
        self._open(Path(trial.directory), trial)
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
        self._faults = FaultFile(directory, timeout_s=trial.timeout_s)
        self._faults.goes_on()
        self._checkpoint = directory / "checkpoint"
        restart = restart_of(directory, trial.run)
        self._metrics = MetricsFile(directory / METRICS_FILE, keep_below=restart.step)
        self._training = Training(
            trial.run,
            self._row,
            device="cuda" if trial.gpus else "cpu",
            restore=restart.checkpoint,
            judge=judge_in(directory, trial.run, trial.stop),
            micro_batch_size=micro_batch_of(directory, trial.run),
        )
        seen = self._training.stream.corpus.sha256
        if trial.data_sha256 and seen != trial.data_sha256:
            raise ValueError(
                f"The text of data.name={trial.run.data.name} must be the same on every node, got "
                f"another here than at the driver; use the same Python and the same files."
            )

    def step(self) -> dict[str, Any]:
        """Trains to the next validation; reports where the run stands.

        An error ends the run, whatever it is: sys.exit in a user's model raises SystemExit. Where
        memory or storage failed, the run goes on from its checkpoint.
        """
        waits = patience()
        while True:
            try:
                self._advance()
                break
            except BaseException as error:
                if not self._may_try_again(error, waits):
                    break
            self._abandon()
        if self._faults is not None:
            self._faults.rests()
        return self._report()

    def _advance(self) -> None:
        if self._fresh:
            self._start()
        assert self._training is not None
        if self._faults is not None:
            self._faults.goes_on()
        self._training.advance()
        self._keep(self._training)

    def _row(self, step: int, metrics: Mapping[str, float]) -> None:
        assert self._metrics is not None
        self._metrics(step, metrics)
        if self._faults is not None:
            self._faults.goes_on()

    def _may_try_again(self, error: BaseException, waits: Iterator[None]) -> bool:
        """Notes an error, where it is one that another try doesn't mend."""
        if getattr(error, "is_ray_terminate", False):  # Ray's SystemExit, at a SIGTERM.
            raise error
        directory, run = Path(self._trial.directory), self._trial.run
        storage = storage_error(error)
        if storage is not None:
            if self._faults is not None:
                self._faults.rests()
            if next(waits, self) is None:
                return True
            self._failed_storage = storage_sentence(storage, directory.parents[1])
            return False
        if memory_error(error):
            at = self._training.step if self._training else 0
            if halve(directory, run, f"memory ran out at step {at} ({_one_line(error)})"):
                return True
            self._error = f"out of memory: {self._note(error)}"
            return False
        self._error = self._note(error)
        return False

    def _abandon(self) -> None:
        """Leaves the run as a kill would have."""
        with suppress(OSError):
            self._close(keep_state=False)
        self._fresh = True
        gc.collect()
        if self._trial.gpus:
            torch.cuda.empty_cache()

    def _keep(self, training: Training) -> None:
        assert self._metrics is not None
        outcome = training.outcome
        due = time.monotonic() - self._last_checkpoint >= self._trial.checkpoint_seconds
        # Neither a checkpoint nor an end may outlive a power cut that its rows don't.
        rows = self._metrics.sync() if due or outcome else None
        self._metrics.flush()
        if outcome is not None:
            if self._trial.keep_models and outcome.outcome == "finished":
                training.save_model(self._checkpoint)
            (self._checkpoint / PREVIOUS_FILE).unlink(missing_ok=True)
        elif due:
            training.save(self._checkpoint, rows=rows)
            self._last_checkpoint, self._saved_step = time.monotonic(), training.step

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
        elif training is not None and not self._failed_storage:
            outcome = training.outcome
        if outcome is not None:
            outcome = self._with_note(outcome)
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
            "rows": self._metrics.rows if self._metrics else None,
            "outcome": outcome,
            "storage": self._failed_storage,
            "done": outcome is not None or bool(self._failed_storage),
        }

    def _with_note(self, outcome: Outcome) -> Outcome:
        """The outcome, saying so where the micro-batch is smaller than the run's."""
        smaller = note(Path(self._trial.directory), self._trial.run)
        return replace(outcome, reason=f"{outcome.reason}; {smaller}") if smaller else outcome

    @property
    def _forecast(self) -> Mapping[str, Any] | None:
        judge = self._training.judge if self._training else None
        return judge.forecast if judge else None

    def _note(self, error: BaseException) -> str:
        """Keeps the traceback beside the run; returns the error as one line."""
        text = redacted("".join(traceback.format_exception(error)))
        keep_error(Path(self._trial.directory), text)
        where = "" if isinstance(error, ModelError) else place(error)
        return redacted(f"{_one_line(error)}{f' in {where}' if where else ''}")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Forgets the old run completely and opens the new one in the same process."""
        self._close(keep_state=False)
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Closes the run; one that was interrupted keeps its state for `resume`."""
        with suppress(Exception):  # What can't be kept is trained again, as after a kill.
            self._close(keep_state=True)

    def _close(self, *, keep_state: bool) -> None:
        training, metrics = self._training, self._metrics
        failed = self._error or self._failed_storage
        with ExitStack() as last:
            last.callback(self._let_go)
            if metrics is not None:
                last.callback(metrics.close)
            if training is not None and training.outcome is None and not failed:
                # Saved again, it would take the place of the checkpoint before.
                if keep_state and training.step != self._saved_step:
                    # A checkpoint never runs ahead of its rows.
                    training.save(self._checkpoint, rows=metrics.sync() if metrics else None)
                training.end("stopped", "")

    def _let_go(self) -> None:
        faults, lock = self._faults, self._lock
        self._training = self._metrics = self._lock = self._faults = None
        with ExitStack() as last:  # A full disk may refuse either.
            if lock is not None:
                last.callback(lock.release)
            if faults is not None:
                last.callback(faults.close)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Not used: checkpoints are the run's own, so that they outlive Ray's experiment state."""
        raise RuntimeError(
            f"Ray's checkpoints are switched off here, asked for in {checkpoint_dir}."
        )


def _one_line(error: BaseException) -> str:
    if isinstance(error, ModelError):
        return str(error)
    return ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
