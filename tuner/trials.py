"""Runs as trials on Ray Tune: from what waits in a sweep's directory to an outcome for each."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune

from tuner.cluster import Connection, slots
from tuner.config import Run
from tuner.driver import Driver, Listener
from tuner.execution import Execution
from tuner.journal import past_reports
from tuner.plan import label_runs
from tuner.progress import Progress
from tuner.rundir import cost
from tuner.schedulers import BracketPerGroup, make_scheduler
from tuner.trainable import RunTrainable, Trial
from tuner.watchdog import Watchdog

RETRIES = 3
"""How often a trial goes on from its checkpoint after its worker was lost."""


def run_trials(
    directory: Path,
    execution: Execution,
    connection: Connection,
    *,
    waiting: list[dict[str, Any]],
    ended: list[dict[str, Any]],
    listener: Listener,
) -> str:
    """Runs what waits; returns why the watchdog ended that before its time, or nothing.

    waiting and ended are what `read_runs` gives. Interrupted (SIGINT, SIGTERM), it returns as well:
    runs without an outcome say so.
    """
    # The longest first: at the end no core waits long for the last trial.
    waiting = sorted(waiting, key=cost, reverse=True)
    trials = {facts["run_id"]: _trial(facts, directory, execution) for facts in waiting}
    scheduler = _scheduler_with_past(directory, execution, [*ended, *waiting])
    watchdog = Watchdog(connection, execution.cpus_per_trial, execution.gpus_per_trial)
    progress = Progress({f["run_id"]: cost(f) for f in waiting}, done=len(ended))
    driver = Driver(
        directory / "runs",
        progress=progress,
        trials=trials,
        labels=label_runs([facts["run"] for facts in [*waiting, *ended]]),
        listeners=(listener,),
        stop_reasons=scheduler.reasons if scheduler else {},
        tick=watchdog.tick,
    )
    at_once = slots(connection, execution.cpus_per_trial, execution.gpus_per_trial)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, at_once))
    storage = directory / ".ray"
    tuner = _tuner(trials, execution, scheduler, driver, storage)
    with watchdog, _handlers_back(), suppress(KeyboardInterrupt):
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)
    if progress.reader_gone:
        raise BrokenPipeError
    return watchdog.reason or ""


def _tuner(
    trials: Mapping[str, Trial],
    execution: Execution,
    scheduler: BracketPerGroup | None,
    driver: Driver,
    storage: Path,
) -> tune.Tuner:
    return tune.Tuner(
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


def _trial(facts: Mapping[str, Any], directory: Path, execution: Execution) -> Trial:
    return Trial(
        run_id=facts["run_id"],
        run=facts["run"],
        size=facts["size"],
        directory=str(directory / "runs" / facts["run_id"]),
        threads=max(1, int(execution.cpus_per_trial)),
        gpus=execution.gpus_per_trial,
        checkpoint_seconds=execution.checkpoint_seconds,
        keep_models=execution.keep_models,
        data_sha256=facts["data_sha256"],
    )


def scheduler_of(
    execution: Execution, runs: list[Run], groups: Mapping[str, str]
) -> BracketPerGroup | None:
    """Returns the scheduler of these runs, or None for none; groups is {run id: who compete}.

    Raises ValueError for settings that don't fit the runs.
    """
    return make_scheduler(
        execution.scheduler,
        groups=groups,
        max_steps=max(run.steps for run in runs),
        grace_steps=execution.grace_steps or min(run.eval_every for run in runs),
        reduction_factor=execution.reduction_factor,
    )


def competitors(run: Run, size: int) -> str:
    """Returns the group in which a run competes for survival, in words.

    Sizes don't compete, since larger models win later, and neither do number formats: losses of
    ternary weights fall late.
    """
    q = run.quantization
    if q.format == "none":
        return f"size {size}"
    return f"size {size}, {q.format}{f' {q.scale}' if q.format == 'ternary' else ''}"


def _scheduler_with_past(
    directory: Path, execution: Execution, journal: list[dict[str, Any]]
) -> BracketPerGroup | None:
    """The scheduler, told what it would know had this process run the sweep from its start."""
    groups = {facts["run_id"]: competitors(facts["run"], facts["size"]) for facts in journal}
    scheduler = scheduler_of(execution, [facts["run"] for facts in journal], groups)
    if scheduler is not None:
        for run_id in groups:
            scheduler.replay(run_id, *past_reports(directory / "runs" / run_id))
    return scheduler


@contextmanager
def _handlers_back() -> Iterator[None]:
    """Puts the handlers back that Tune leaves behind; one of them swallows the next Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # Nothing can be set there.
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by C, out of Python's reach.
                signal.signal(number, handler)
