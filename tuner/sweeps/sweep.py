"""A sweep: plan every run, write it down, then run what has no outcome on Ray Tune.

The directory is the journal; `resume` is the second half again.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from foretune.redaction import redacted
from foretune.tuner.cluster.connect import Connection, connect
from foretune.tuner.cluster.interruption import Interruption
from foretune.tuner.cluster.storage_probe import probe_storage
from foretune.tuner.config.kept_secrets import keep_secrets
from foretune.tuner.config.resolve import resolve as complete
from foretune.tuner.config.run import Run
from foretune.tuner.config.user_files import load_file
from foretune.tuner.planning.execution import Execution, recorded_execution
from foretune.tuner.planning.forecast_skip import skips
from foretune.tuner.planning.forecast_stop import stopper_of
from foretune.tuner.planning.optuna_plan import open_plan
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.sampling import Search
from foretune.tuner.planning.spaces import Space
from foretune.tuner.records.files import check_writable, local_path
from foretune.tuner.records.journal import (
    check_new,
    describe_all,
    holds_sweep,
    new_folder,
    read_runs,
    write_down,
)
from foretune.tuner.records.provenance import CODE_ROOT, commit, machine, versions
from foretune.tuner.records.run_json import run_id
from foretune.tuner.records.sweep_json import SweepRecord, change_of
from foretune.tuner.sweeps.execute import SweepResult, execute
from foretune.tuner.sweeps.trials import scheduler_of
from foretune.tuner.tracking.sender import check_destination


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
        return execute(directory, execution, connection, interruption)


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
        return execute(
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
