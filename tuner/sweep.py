"""A sweep: plan every run, write it down, then run what has no outcome on Ray Tune.

The directory is the journal; `resume` is the second half again.
"""

import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from filelock import FileLock, Timeout
from ray import tune

import analysis
from analysis.run_files import read_metrics
from tuner import cluster
from tuner.config import Run, dotted
from tuner.data import load_corpus
from tuner.driver import Driver
from tuner.execution import Execution
from tuner.mlflow_tracker import MLflowSender, public
from tuner.plan import Space, describe_space, plan
from tuner.progress import Progress
from tuner.rundir import (
    FORMAT,
    check_writable,
    cost,
    describe,
    from_config,
    read_json,
    run_id,
    write_json,
)
from tuner.schedulers import BracketPerSize, make_scheduler
from tuner.storage_probe import probe_storage
from tuner.trainable import RunTrainable, Trial
from tuner.watchdog import Watchdog

CODE_ROOT = Path(__file__).resolve().parent.parent
RETRIES = 3
"""How often a trial goes on from its checkpoint after its worker was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What came of a sweep."""

    directory: Path
    outcomes: Mapping[str, int]
    """How many runs ended as finished, diverged, stopped, failed; `unfinished` counts the rest."""
    message: str
    """What waits for MLflow, or empty."""
    stalled: str = ""
    """Why the sweep was ended before its time, or empty."""

    @property
    def exit_code(self) -> int:
        """0 done, 3 some trials failed, 130 interrupted."""
        if self.outcomes.get("unfinished"):
            return 130
        return 3 if self.outcomes.get("failed") else 0


def sweep(
    space: Space,
    *,
    out: str | Path,
    preset: str | Run = "lm-tiny",
    search: str = "grid",
    num_samples: int = 1,
    seeds: int = 1,
    seed: int = 0,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
    name: str = "own",
    command: str = "",
) -> SweepResult:
    """Runs every run of a space on Ray Tune, each under out/runs/<run_id>.

    space is {dotted field: Ray Tune domain}; see `tuner.plan.plan` for search, num_samples and
    seeds. Raises ValueError, before anything starts, for what can't run. A trial that diverges or
    fails is an outcome. Interrupted (SIGINT, SIGTERM), it returns with `unfinished` counted.
    """
    execution = execution or Execution()
    runs = plan(
        space,
        preset=preset,
        search=search,
        num_samples=num_samples,
        seeds=seeds,
        seed=seed,
        interventions=interventions,
        overrides=overrides,
    )
    _scheduler(execution, runs, {})  # For its rules alone.
    directory = Path(out).resolve()
    check_new(directory)  # Now, and again once connected.
    facts = {
        "format": FORMAT,
        "command": command or "tuner.sweep(...)",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "space_name": name,
        "space": describe_space(space),
        "preset": preset if isinstance(preset, str) else "own",
        "search": search,
        "scheduler": execution.scheduler,
        "seed": seed,
        "seeds": seeds,
        "num_samples": num_samples,
        "interventions": list(interventions),
        "overrides": dict(overrides or {}),
        "execution": {**asdict(execution), "tracking_uri": public(execution.tracking_uri)},
        "versions": _versions(),
        "commit": _commit(),
        "machine": _machine(),
    }
    with _connection(execution, directory) as connection:
        write_down(directory, runs, facts)
        return _execute(directory, execution, connection)


def resume(out: str | Path, *, execution: Execution | None = None) -> SweepResult:
    """Continues the sweep in a directory: runs with an outcome are kept, the rest go on.

    Raises ValueError where the directory holds no sweep, or its runs or text have changed.
    """
    directory = Path(out).resolve()
    facts = read_sweep(directory)
    execution = execution or Execution(**facts["execution"])
    with _connection(execution, directory) as connection:
        return _execute(directory, execution, connection)


def read_sweep(directory: Path) -> dict[str, Any]:
    """Returns `sweep.json`; ValueError where there is none."""
    path = directory / "sweep.json"
    if not path.is_file():
        raise ValueError(f"DIR must hold a sweep, got {directory} without sweep.json.")
    return read_json(path)


def check_new(directory: Path) -> None:
    """Raises ValueError where a directory holds a sweep."""
    if (directory / "sweep.json").exists() or (directory / "runs").exists():
        raise ValueError(
            f"--out must be a new directory, got {directory}, which holds a sweep; continue it "
            f"with 'foretune resume {directory}' or name another."
        )


def write_down(directory: Path, runs: list[Run], facts: Mapping[str, Any]) -> None:
    """Writes every run.json, then sweep.json, into a new directory.

    Raises ValueError where the directory can't be written or holds another sweep.
    """
    check_new(directory)
    check_writable(directory)
    hashes = {run.data: load_corpus(run.data).sha256 for run in runs}
    for run in runs:
        facts_of_run = {**describe(run), "data_sha256": hashes[run.data]}
        write_json(directory / "runs" / run_id(run) / "run.json", facts_of_run)
    write_json(directory / "sweep.json", {**facts, "trials": len(runs)})


@contextmanager
def _connection(execution: Execution, directory: Path) -> Iterator[cluster.Connection]:
    check_writable(directory)
    connection = cluster.connect(
        execution.address,
        cpus_per_trial=execution.cpus_per_trial,
        gpus_per_trial=execution.gpus_per_trial,
        code_root=CODE_ROOT,
    )
    try:
        if not connection.local:
            probe_storage(directory)
        yield connection
    finally:
        connection.close()


def _execute(directory: Path, execution: Execution, connection: cluster.Connection) -> SweepResult:
    lock = FileLock(directory / ".sweep.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"DIR must have one sweep at a time, and another process runs {directory}; wait for it."
        ) from None
    with lock:
        waiting, ended = _journal(directory)
        sender = MLflowSender(
            directory, tracking_uri=execution.tracking_uri, experiment=execution.experiment
        )
        sender.start()
        message, stalled = "", ""
        try:
            if waiting:
                stalled = _run_trials(directory, execution, connection, waiting, ended, sender)
            analysis.collect(directory)
            for table in ("trials.parquet", "telemetry.parquet"):
                sender.artifact(directory / table)
        finally:
            message = sender.close()
    return SweepResult(
        directory=directory,
        outcomes=count_outcomes(directory),
        message=message,
        stalled=stalled,
    )


def count_outcomes(directory: Path) -> dict[str, int]:
    """Returns how many runs of a sweep ended how; `unfinished` counts those without an outcome."""
    counts: dict[str, int] = {}
    for run_dir in sorted((directory / "runs").iterdir()):
        path = run_dir / "outcome.json"
        name = read_json(path)["outcome"] if path.exists() else "unfinished"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _journal(directory: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the run.json of runs without an outcome and of those with one, each verified."""
    waiting, ended = [], []
    for path in sorted((directory / "runs").glob("*/run.json")):
        facts = read_json(path)
        run = from_config(facts["config"])
        if run_id(run) != facts["run_id"] or facts["run_id"] != path.parent.name:
            raise ValueError(
                f"{path} must hold the run that its folder is named after, got another config; "
                f"restore it."
            )
        if load_corpus(run.data).sha256 != facts["data_sha256"]:
            raise ValueError(
                f"The text of {run.data.name} must be the one that the sweep began with, got "
                f"another (a different Python or a changed file); restore it or start a new sweep."
            )
        facts["run"] = run
        (ended if (path.parent / "outcome.json").exists() else waiting).append(facts)
    return waiting, ended


def _run_trials(
    directory: Path,
    execution: Execution,
    connection: cluster.Connection,
    waiting: list[dict[str, Any]],
    ended: list[dict[str, Any]],
    sender: MLflowSender,
) -> str:
    """Runs what waits; returns why the watchdog ended it, or nothing."""
    # The longest first: at the end no core waits long for the last trial.
    waiting = sorted(waiting, key=cost, reverse=True)
    trials = {facts["run_id"]: _trial(facts, directory, execution) for facts in waiting}
    runs = [facts["run"] for facts in [*waiting, *ended]]
    sizes = {facts["run_id"]: facts["size"] for facts in [*waiting, *ended]}
    scheduler = _scheduler(execution, runs, sizes)
    if scheduler is not None:
        for facts in ended:
            _replay(scheduler, facts["run_id"], directory)
    watchdog = Watchdog(connection, execution.cpus_per_trial, execution.gpus_per_trial)
    driver = Driver(
        directory / "runs",
        progress=Progress({f["run_id"]: cost(f) for f in waiting}, done=len(ended)),
        trials=trials,
        labels=label_runs(runs),
        listeners=(sender,),
        stop_reasons=scheduler.reasons if scheduler else {},
        tick=watchdog.tick,
    )
    at_once = cluster.slots(connection, execution.cpus_per_trial, execution.gpus_per_trial)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, at_once))
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # The new console prints its banner even when quiet.
    storage = directory / ".ray"
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(RunTrainable, trials=trials),
            {"cpu": execution.cpus_per_trial, "gpu": execution.gpus_per_trial},
        ),
        param_space={"run_id": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=execution.max_concurrent or None,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["run_id"],
            trial_dirname_creator=lambda trial: trial.config["run_id"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[driver],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    # Interrupted, the runs without an outcome say so.
    with watchdog, _terminate_as_interrupt(), suppress(KeyboardInterrupt):
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)
    return watchdog.reason or ""


def _trial(facts: Mapping[str, Any], directory: Path, execution: Execution) -> Trial:
    return Trial(
        run_id=facts["run_id"],
        run=facts["run"],
        size=facts["size"],
        directory=str(directory / "runs" / facts["run_id"]),
        threads=max(1, int(execution.cpus_per_trial)),
        gpus=execution.gpus_per_trial,
        checkpoint_seconds=execution.checkpoint_seconds,
        data_sha256=facts["data_sha256"],
    )


def _scheduler(
    execution: Execution, runs: list[Run], sizes: Mapping[str, int]
) -> BracketPerSize | None:
    return make_scheduler(
        execution.scheduler,
        sizes=sizes,
        max_steps=max(run.steps for run in runs),
        grace_steps=execution.grace_steps or min(run.eval_every for run in runs),
        reduction_factor=execution.reduction_factor,
    )


def _replay(scheduler: BracketPerSize, run_id: str, directory: Path) -> None:
    """Shows the scheduler the validations of a run that ended in an earlier process."""
    rows = read_metrics(directory / "runs" / run_id / "metrics.jsonl")
    validated = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
    results = [
        {"step": step, "objective": min(loss, validated[0][1])} for step, loss in validated[1:]
    ]
    stand_in = SimpleNamespace(trial_id=run_id, config={"run_id": run_id})
    scheduler.replay(stand_in, results)


def label_runs(runs: list[Run]) -> dict[str, str]:
    """Returns a short name for every run: the fields in which they differ."""
    flat = {run_id(run): dotted(run) for run in runs}
    paths = list(next(iter(flat.values()))) if flat else []
    varying = [p for p in paths if len({repr(f.get(p)) for f in flat.values()}) > 1]
    return {
        name: " ".join(f"{p.rpartition('.')[2]}={_short(fields.get(p))}" for p in varying) or name
        for name, fields in flat.items()
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM (slurm, Kubernetes) end a sweep as Ctrl-C does; Tune knows only SIGINT."""

    def interrupt(number: int, frame: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    try:
        before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # Not in the main thread: nothing to set.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _versions() -> dict[str, str]:
    names = ("foretune", "ray", "torch", "numpy", "mlflow", "pyarrow", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _commit() -> str:
    git = ["git", "-C", str(CODE_ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "cpus": os.cpu_count(), "processor": _processor()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
