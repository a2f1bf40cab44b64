"""A sweep: plan every run, write it down, then run what has no outcome on Ray Tune.

The directory is the journal; `resume` is the second half again.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from foretune import analysis
from foretune.redaction import redacted
from foretune.tuner.cluster.connect import Connection, connect
from foretune.tuner.cluster.interruption import Interruption
from foretune.tuner.cluster.storage_probe import probe_storage
from foretune.tuner.config.kept_secrets import check_kept, keep_secrets
from foretune.tuner.config.resolve import resolve as complete
from foretune.tuner.config.run import Run
from foretune.tuner.config.user_files import load_file
from foretune.tuner.planning.execution import Execution, recorded_execution
from foretune.tuner.planning.forecast_skip import SkipRule, skips
from foretune.tuner.planning.forecast_stop import limits, stopper_of
from foretune.tuner.planning.optuna_plan import open_plan
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.sampling import Search
from foretune.tuner.planning.spaces import Space
from foretune.tuner.records.files import check_writable, local_path
from foretune.tuner.records.journal import (
    check_new,
    count_outcomes,
    describe_all,
    holds_sweep,
    new_folder,
    read_runs,
    write_down,
)
from foretune.tuner.records.provenance import CODE_ROOT, commit, machine, versions
from foretune.tuner.records.run_json import RunRecord, run_id
from foretune.tuner.records.sweep_json import SweepRecord, change_of
from foretune.tuner.sweeps.retry import reopen_failed
from foretune.tuner.sweeps.trials import run_trials, scheduler_of
from foretune.tuner.tracking.sender import MLflowSender, check_destination

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


def sweep(
    space: Space,
    *,
    out: str | Path,
    preset: str | Run = "lm-tiny",
    search: Search = "grid",
    num_samples: int = 1,
    seeds: int = 1,
    seed: int = 0,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
) -> SweepResult:
    """Runs every run of a space on Ray Tune, each under out/runs/<run_id>.

    The arguments from preset to overrides are those of a `Plan`; see `sweep_plan`. The same call
    again, as in a notebook's cell, goes on with the sweep in out: runs that have ended are kept.
    """
    plan = Plan(
        space,
        preset=preset,
        search=search,
        num_samples=num_samples,
        seeds=seeds,
        seed=seed,
        interventions=tuple(interventions),
        overrides=overrides or {},
    )
    if holds_plan(local_path("out", out), plan):
        drawn = open_plan(plan)
        keep_secrets(*(drawn.examples() if drawn else plan.runs()))
        return resume(out, execution=execution)
    return sweep_plan(plan, out=out, execution=execution)


def sweep_plan(
    plan: Plan, *, out: str | Path, execution: Execution | None = None, command: str = ""
) -> SweepResult:
    """Runs every run of a plan on Ray Tune, each under out/runs/<run_id>.

    command is the command line, for `sweep.json`. A trial that diverges or fails is an outcome.
    Interrupted (SIGINT, SIGTERM), it returns with `unfinished` counted. Raises ValueError for what
    can't run, before anything starts, and leaves no directory then.
    """
    execution = (execution or Execution()).with_store()
    directory = local_path("out", out).resolve()
    drawn = open_plan(plan)
    runs = drawn.examples() if drawn else plan.runs()
    keep_secrets(*runs)
    scheduler_of(execution, runs, {})  # For its rules alone, as the next.
    stopper_of(execution)
    check_new(directory)  # Now, and again once connected.
    planned = describe_all(runs) if not drawn or execution.skip_above < 1 else []
    skipped, sentences = skips(planned, execution)
    for sentence in sentences:
        print(f"{'Of random draws: ' if drawn else ''}{sentence}", flush=True)
    if drawn:  # Those were examples; what will be there is judged when it is drawn.
        planned, skipped = [], {}
    record = SweepRecord(
        command=redacted(command) or "tuner.sweeps.sweep(...)",
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        plan=plan.describe(),
        draws=drawn.to_json() if drawn else None,
        scheduler=execution.scheduler,
        execution={**asdict(execution), "tracking_uri": redacted(execution.tracking_uri)},
        versions=versions(),
        commit=commit(),
        machine=machine(),
        trials=plan.num_samples if drawn else len(planned),
    )
    with new_folder(directory), _connection(execution, directory) as (connection, interruption):
        write_down(directory, planned, record, skipped.values())
        return _execute(directory, execution, connection, interruption)


def resume(
    out: str | Path,
    *,
    execution: Execution | None = None,
    preset: str = "",
    retry_failed: bool = False,
) -> SweepResult:
    """Continues the sweep in a directory: runs with an outcome are kept, the rest go on.

    preset is FILE.py:NAME of the sweep's own, where its file isn't below the working directory.
    retry_failed lets runs that failed go on as well, from their checkpoints. MLflow's store stays
    the one it began with; execution, or MLFLOW_TRACKING_URI, names it again where this user hasn't
    named it on this machine. Raises ValueError where the directory holds no sweep, where its runs
    or text have changed, and where it alone says where to send them.
    """
    directory = Path(out).resolve()
    record = SweepRecord.read(directory)
    execution = execution or replace(recorded_execution(record.execution), tracking_uri="")
    check_writable(directory)
    check_destination(directory, execution.tracking_uri)
    if changed := change_of(directory):
        print(changed, flush=True)
    if preset:
        _load_own(preset)
    read_runs(directory)  # For what it refuses, before Ray starts.
    with _connection(execution, directory) as (connection, interruption):
        return _execute(
            directory,
            execution,
            connection,
            interruption,
            preset=preset,
            retry_failed=retry_failed,
        )


def _load_own(preset: str) -> None:
    """Loads the file of a sweep's own preset, and takes the secrets that only the preset has."""
    module = load_file(preset)
    if ":" in preset or hasattr(module, "RUN"):
        keep_secrets(complete(preset))


def holds_plan(directory: Path, plan: Plan) -> bool:
    """Whether a directory holds the sweep of just this plan: the same runs, or the same draws."""
    if not holds_sweep(directory):
        return False
    record, drawn = SweepRecord.read(directory), open_plan(plan)
    if drawn:
        return record.draws == json.loads(json.dumps(drawn.to_json()))
    if record.draws or record.plan.get("search") != plan.search:
        return False
    there = {path.parent.name for path in (directory / "runs").glob("*/run.json")}
    return there == {run_id(run) for run in plan.runs()}


@contextmanager
def _connection(execution: Execution, directory: Path) -> Iterator[tuple[Connection, Interruption]]:
    with Interruption(lambda: interruption_note(directory)) as interruption:
        connection = connect(
            execution.address,
            cpus_per_trial=execution.cpus_per_trial,
            gpus_per_trial=execution.gpus_per_trial,
            code_root=CODE_ROOT,
        )
        note = (
            f"foretune: Ray must run as long as its sweep, got no answer from it any more; "
            f"continue with: foretune resume {directory}"
        )
        interruption.watch(*connection.places, lost=(note, connection.patience_s))
        try:
            if not connection.local:
                probe_storage(directory)
            yield connection, interruption
        finally:
            interruption.unwatch()
            connection.close()


def interruption_note(directory: Path) -> str:
    """Returns what to do after an interruption, as it is printed."""
    if not holds_sweep(directory):
        return "Interrupted before the sweep began."
    return f"Interrupted; continue with: foretune resume {directory}"


def _execute(
    directory: Path,
    execution: Execution,
    connection: Connection,
    interruption: Interruption,
    *,
    preset: str = "",
    retry_failed: bool = False,
) -> SweepResult:
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
            analysis.collect(directory)
            for table in ("trials.parquet", "telemetry.parquet"):
                sender.artifact(directory / table)
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
