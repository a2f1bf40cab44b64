"""A sweep that is written down is run: what waits, what is drawn, its tables, and what is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from foretune import analysis
from foretune.tuner.cluster.connect import Connection
from foretune.tuner.cluster.interruption import Interruption
from foretune.tuner.config.kept_secrets import check_kept, keep_secrets
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_skip import SkipRule
from foretune.tuner.planning.forecast_stop import limits, stopper_of
from foretune.tuner.records.journal import count_outcomes, read_runs
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.records.storage import storage_error, storage_sentence
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.sweeps.retry import reopen_failed
from foretune.tuner.sweeps.trials import run_trials
from foretune.tuner.tracking.sender import MLflowSender

if TYPE_CHECKING:  # Optuna is loaded where it is asked for.
    from foretune.tuner.planning.optuna_draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What came of a sweep."""

    directory: Path
    outcomes: Mapping[str, int]
    """How many runs ended as finished, diverged, stopped, failed; `unfinished` counts those that
    go on, `lost` those whose records are damaged or gone."""
    message: str
    """What waits for MLflow, or empty."""
    stalled: str = ""
    """Why the sweep was ended before its time, or empty."""

    @property
    def exit_code(self) -> int:
        """0 done, 3 trials failed or are lost or the sweep couldn't go on, 130 interrupted."""
        if self.stalled:
            return 3
        if self.outcomes.get("unfinished"):
            return 130
        return 3 if self.outcomes.get("failed") or self.outcomes.get("lost") else 0


def execute(
    directory: Path,
    execution: Execution,
    connection: Connection,
    interruption: Interruption,
    *,
    preset: str = "",
    retry_failed: bool = False,
) -> SweepResult:
    """Runs what a sweep's directory holds without an outcome, and what is still to be drawn.

    preset is FILE.py:NAME of a search's own; retry_failed lets runs that failed go on as well.
    Raises ValueError where another process runs the sweep.
    """
    lock = FileLock(directory / ".sweep.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"DIR must have one sweep at a time, and another process runs {directory}; wait for it."
        ) from None
    with lock:
        if retry_failed:
            print(
                f"Tried again: {', '.join(reopen_failed(directory)) or 'none failed'}", flush=True
            )
        waiting, ended = read_runs(directory, repair=lambda sentence: print(sentence, flush=True))
        draws = _draws(directory, [*waiting, *ended], execution, preset)
        sender = MLflowSender(
            directory, tracking_uri=execution.tracking_uri, experiment=execution.experiment
        )
        sender.start()
        message, stalled = "", ""
        try:
            if waiting or (draws and draws.left):
                stop = stopper_of(execution, directory)
                runs = draws.examples() if draws else [record.run for record in waiting]
                for sentence in limits(stop, runs) if stop else ():
                    print(f"{'Of random draws: ' if draws else ''}{sentence}", flush=True)
                stalled = run_trials(
                    directory,
                    execution,
                    connection,
                    interruption,
                    waiting=waiting,
                    ended=ended,
                    stop=stop,
                    listener=sender,
                    draws=draws,
                )
            stalled = _make_tables(directory, sender, stalled)
        finally:
            undrawn = draws.left if draws and not draws.exhausted else 0
            seconds = 3.0 if interruption.at_start else 10.0
            message = sender.close(seconds, interrupted=undrawn > 0)
    outcomes = count_outcomes(directory)
    if draws and draws.exhausted:
        print(draws.exhausted, flush=True)
    if undrawn:
        outcomes["unfinished"] = outcomes.get("unfinished", 0) + undrawn
    if outcomes.get("unfinished") and not stalled and not interruption.heard:
        stalled = f"Ray ended the sweep before its time; continue with: foretune resume {directory}"
    return SweepResult(directory=directory, outcomes=outcomes, message=message, stalled=stalled)


def _make_tables(directory: Path, sender: MLflowSender, stalled: str) -> str:
    """Makes the sweep's tables, and sends them; returns why the sweep ended early, or nothing.

    Storage that fails only now ended nothing: they are made again by whoever asks for them.
    """
    try:
        analysis.collect(directory)
    except OSError as error:
        failed = storage_error(error)
        if failed is None:
            raise
        return stalled or storage_sentence(failed, directory)
    for table in ("trials.parquet", "telemetry.parquet"):
        sender.artifact(directory / table)
    return stalled


def _draws(
    directory: Path, journal: list[RunRecord], execution: Execution, preset: str
) -> "Draws | None":
    """What draws the runs of a sweep, rebuilt from those that are written down."""
    record = SweepRecord.read(directory)
    if record.draws is None:
        return None
    from foretune.tuner.planning.optuna_draws import Draws
    from foretune.tuner.planning.optuna_plan import OpenPlan

    skip = SkipRule(execution) if execution.skip_above < 1 else None
    named = preset and isinstance(record.draws.get("preset"), str)
    facts = {**record.draws, "preset": preset} if named else record.draws
    draws = Draws(directory, OpenPlan.from_json(facts), journal, skip=skip)
    if draws.left:
        examples = draws.examples()
        keep_secrets(*examples)  # Of a preset in a file, say, which is read again.
        for run in examples:
            check_kept(run)
    return draws
