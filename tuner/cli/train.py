"""`foretune train`: one run without Ray."""

import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from foretune.argument_error import Argument, ArgumentError, spelled
from foretune.redaction import redacted
from foretune.tuner.cli.arguments import Assignments, Interventions, command_line
from foretune.tuner.planning.execution import Stopping

if TYPE_CHECKING:
    from foretune.tuner.config.run import Run
    from foretune.tuner.planning.forecast_stop import ForecastStop
    from foretune.tuner.records.files import MetricsFile
    from foretune.tuner.training.outcome import Outcome
    from foretune.tuner.training.train import Training

ERROR_FILE = "error.txt"
"""Traceback of a run that failed, in its folder."""
DIVERGED = 4
"""Exit code of a run that diverged, which is no failure, and for a script no success."""


def train(
    preset: Positional[str],
    /,
    *,
    out: str,
    interventions: Interventions = (),
    overrides: Assignments = (),
    size: int | None = None,
    stopping: OmitArgPrefixes[Stopping],
    device: str = "auto",
    threads: int = 1,
) -> int:
    """One run, without Ray: writes OUT/runs/<id>/ and prints progress.

    A run that is already there goes on from its checkpoint; a finished one is refused. Once it has
    finished, its weights are in checkpoint/model.pt, for `foretune export`.

    Args:
        preset: name of a preset (`foretune list presets`) or FILE.py:NAME.
        out: directory for the run's records.
        interventions: named changes, applied from left to right (`foretune list interventions`).
        overrides: fields to set, like optimizer.lr=1e-3 (steps and warm-up in updates, batch_size
            in sequences, data.sequence_length in tokens).
        size: rung of the ladder; for transformers the width, or what model.ladder says.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    from foretune.tuner.records.files import local_path

    return train_one(
        preset,
        out=local_path("out", out),
        interventions=interventions,
        overrides=overrides,
        size=size,
        stopping=stopping,
        device=device,
        threads=threads,
        command=command_line(),
    )


def train_one(
    preset: str,
    *,
    out: Path,
    interventions: Iterable[str] = (),
    overrides: Iterable[str] = (),
    size: int | None = None,
    stopping: Stopping | None = None,
    device: str = "auto",
    threads: int = 1,
    command: str = "",
) -> int:
    """Trains one run into out/runs/<id>/, printing every validation; returns the exit code.

    A finished one keeps its weights there, and nothing to go on from.
    Goes on from the run's checkpoint where there is one, also after a try that failed. A stopper
    judges with the model that is shipped. Raises ValueError for bad arguments.
    """
    import torch

    from foretune.tuner.config.assignments import parse_assignments
    from foretune.tuner.config.kept_secrets import keep_secrets
    from foretune.tuner.config.resolve import resolve
    from foretune.tuner.planning.forecast_stop import stopper_of
    from foretune.tuner.training.checkpoint import checkpoint_step

    stopping = stopping or Stopping()
    stopping.check_forecast()
    changes = parse_assignments(overrides)
    run = resolve(preset, size=size, interventions=interventions, overrides=changes)
    keep_secrets(run)
    if threads < 1:
        raise ArgumentError(Argument("threads"), f" must be 1 or more, got {threads}.")
    torch.set_num_threads(threads)
    stop = stopper_of(stopping)
    directory = _directory(out, run)
    try:
        return _train(run, directory, stop=stop, device=device, command=command)
    except KeyboardInterrupt:
        # Nothing to save: Ctrl-C may have come in the middle of an update.
        step = checkpoint_step(directory / "checkpoint") or 0
        print(f"Interrupted; the same command goes on from step {step}.")
        return 130
    except OSError as error:
        if error.filename is None:  # Of a write or a sync: it is what the run writes.
            error.filename = str(directory / "metrics.jsonl")
        raise


def _train(
    run: "Run", directory: Path, *, stop: "ForecastStop | None", device: str, command: str
) -> int:
    """Trains a run into its folder; returns the exit code."""
    from foretune.tuner.planning.forecast_stop import judge_in
    from foretune.tuner.records.files import METRICS_FILE, MetricsFile
    from foretune.tuner.records.journal import new_folder
    from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd
    from foretune.tuner.records.restart import restart_of
    from foretune.tuner.records.run_json import describe
    from foretune.tuner.training.checkpoint import remove_checkpoints
    from foretune.tuner.training.train import Training

    checkpoint, restart = directory / "checkpoint", restart_of(directory, run)
    if restart.wrong and restart.checkpoint is None:
        raise ValueError(restart.wrong[0])
    # What may refuse the run comes before its first file.
    try:
        record = describe(run)
        training = Training(run, _nowhere, device=device, restore=restart.checkpoint)
    except Exception as error:
        return _failed(error, run, directory)
    record = replace(record, command=command, data_sha256=training.stream.corpus.sha256)
    with new_folder(directory):
        for name in (OUTCOME_FILE, ERROR_FILE):  # Of a try that failed.
            (directory / name).unlink(missing_ok=True)
        metrics = MetricsFile(directory / METRICS_FILE, keep_below=restart.step)
        record.write(directory)
    if restart.wrong:
        print(restart.note)
    training.sink, training.judge = metrics, judge_in(directory, run, stop)
    print(f"{record.n_params:,} parameters without embedding and head, {run.steps} steps")
    if stop and training.judge is None:
        option = f"{spelled('stopper')} forecast"
        print(f"{option} cannot tell, so it runs without: {stop.problem(run)}.")
    try:
        outcome = _to_the_end(training, checkpoint, metrics)
    except Exception as error:
        return _failed(error, run, directory, training)
    finally:
        metrics.close()
    RunEnd.of(record.run_id, outcome, rows=metrics.rows).write(directory)
    if outcome.outcome == "finished":  # And so it can't be asked to go on.
        remove_checkpoints(checkpoint)
    if outcome.forecast and outcome.forecast["audited"]:
        print(f"audited, so it ran on: {outcome.forecast['reason']}")
    print(f"{outcome.outcome}: {outcome.reason}\nrecords: {directory}")
    return DIVERGED if outcome.diverged else 0


def _failed(
    error: Exception, run: "Run", directory: Path, training: "Training | None" = None
) -> int:
    """Ends a run that an error ended, with the traceback in its folder; returns the exit code.

    training is there once it has begun; before, raises what is no failure of the model but a
    refusal, and always what is one of the storage.
    """
    from foretune.tuner.records.outcome_json import RunEnd
    from foretune.tuner.records.run_json import run_id
    from foretune.tuner.records.storage import storage_error
    from foretune.tuner.training.outcome import Outcome
    from foretune.tuner.training.own_code import failure, place

    refused = training is None and isinstance(error, ValueError) and not place(error)
    if refused or storage_error(error):
        raise error
    reason, path = redacted(failure(error, run.model)), directory / ERROR_FILE
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(redacted("".join(traceback.format_exception(error))))
    if training is not None:
        failed = Outcome(
            outcome="failed",
            step=training.step,
            reason=reason,
            loss_at_init=training.loss_at_init,
            final_val_loss=training.val_loss,
            seconds=training.seconds,
        )
        RunEnd.of(run_id(run), failed).write(directory)
    again = f"the same command goes on; traceback: {path}"
    print(f"foretune: {reason} ({again})", file=sys.stderr)
    return 3


def _directory(out: Path, run: "Run") -> Path:
    """Returns the folder of a run; ValueError where it has ended there, or a sweep is there."""
    from foretune.tuner.records.files import local_path
    from foretune.tuner.records.journal import holds_sweep
    from foretune.tuner.records.outcome_json import RunEnd
    from foretune.tuner.records.run_json import run_id

    if holds_sweep(local_path("out", out)):
        raise ArgumentError(
            Argument("out"),
            f" must not hold a sweep, got {out}, whose records this run would join; name another.",
        )
    directory = out / "runs" / run_id(run)
    end = RunEnd.read(directory)
    if end is not None and end.outcome.outcome != "failed":
        raise ArgumentError(
            Argument("out"), f" must not hold this run already, got {directory}; name another."
        )
    return directory


def _nowhere(step: int, row: Mapping[str, float]) -> None:
    """The sink of a run that has no file yet."""
    raise AssertionError(f"row {step} has no file")


def _to_the_end(training: "Training", checkpoint: Path, metrics: "MetricsFile") -> "Outcome":
    while training.outcome is None:
        training.advance()
        loss = f"{training.val_loss:.4f}" if training.val_loss is not None else "none"
        print(f"step {training.step:>7}  val_loss {loss}  {training.seconds:.1f} s", flush=True)
        rows = metrics.sync()  # Before the checkpoint: an end in between must leave no hole.
        if training.outcome is None:
            training.save(checkpoint, rows=rows)
    if training.outcome.outcome == "finished":
        training.save_model(checkpoint)
    return training.outcome
