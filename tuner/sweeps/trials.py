"""Runs as trials on Ray Tune: from what waits in a sweep's directory to an outcome for each."""

import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from foretune.tuner.cluster.connect import Connection, slots
from foretune.tuner.cluster.interruption import Interruption
from foretune.tuner.cluster.watchdog import Watchdog
from foretune.tuner.config.kept_secrets import kept_secrets
from foretune.tuner.config.run import Run
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_stop import ForecastStop
from foretune.tuner.planning.run_names import name_runs
from foretune.tuner.records.journal import past_reports
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.own_models import kind_of
from foretune.tuner.records.run_json import RunRecord, cost
from foretune.tuner.records.storage import storage_error, storage_sentence
from foretune.tuner.sweeps.driver import Driver, Listener
from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.sweeps.schedulers import BracketPerGroup, make_scheduler
from foretune.tuner.sweeps.trainable import RunTrainable, Trial
from foretune.tuner.sweeps.trial_files import TrialFiles
from foretune.tuner.sweeps.tune_hooks import EarlyEnd, quiet_tune, recoveries

if TYPE_CHECKING:
    from foretune.tuner.planning.optuna_draws import Draws


@dataclass(frozen=True, slots=True)
class _Roster:
    """The trials that are known so far, by run id; a search adds to them."""

    files: TrialFiles
    trials: dict[str, Trial]
    labels: dict[str, str]
    groups: dict[str, str]
    """Who compete, in words."""

    def add(self, record: RunRecord, label: str) -> None:
        run_id = record.run_id
        self.trials[run_id], self.labels[run_id] = self.files.trial(record), label
        self.groups[run_id] = competitors(record.run, record.size)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where Tune has its trials from."""

    space: dict[str, Any]
    searcher: Searcher | None = None
    count: int = 1
    at_once: int | None = None


def run_trials(
    directory: Path,
    execution: Execution,
    connection: Connection,
    interruption: Interruption,
    *,
    waiting: list[RunRecord],
    ended: list[RunRecord],
    stop: ForecastStop | None,
    listener: Listener,
    draws: "Draws | None" = None,
) -> str:
    """Runs what waits, then what is drawn; returns why that ended early, or nothing.

    waiting and ended are what `read_runs` gives. Interrupted (SIGINT, SIGTERM), it returns as well:
    runs without an outcome say so.
    """
    # The longest first: at the end no core waits long for the last trial.
    waiting = sorted(waiting, key=cost, reverse=True)
    examples = draws.examples() if draws else []
    runs = [*(record.run for record in (*ended, *waiting)), *examples]
    files = _trial_files(directory, execution, stop, runs)
    roster = _roster(files, [*ended, *waiting], draws)
    scheduler = scheduler_of(execution, runs, roster.groups)
    _replay(scheduler, directory, roster.groups)
    watchdog = Watchdog(
        connection,
        execution.cpus_per_trial,
        execution.gpus_per_trial,
        stall_s=execution.stall_timeout,
        cure=f"foretune resume {directory}",
    )
    progress = Progress(
        {record.run_id: cost(record) for record in waiting},
        done=len(ended),
        to_draw=draws.left if draws else 0,
    )
    driver = Driver(
        directory / "runs",
        progress=progress,
        trials=roster.trials,
        labels=roster.labels,
        listeners=(listener, draws) if draws else (listener,),
        stop_reasons=scheduler.reasons if scheduler else {},
        tick=watchdog.tick,
        timeout_s=execution.trial_timeout,
    )
    at_once = max(1, slots(connection, execution.cpus_per_trial, execution.gpus_per_trial))
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
    source = _listed(waiting, execution)
    if draws:
        source = _drawn(draws, waiting, roster, progress, execution.max_concurrent or at_once)
    storage = directory / ".ray"
    # A signal that got lost ends the sweep as well.
    early_end = EarlyEnd(
        lambda: driver.storage, lambda: driver.ray_ended, lambda: interruption.heard
    )
    tuner = _tuner(roster.files, source, execution, scheduler, driver, early_end, storage)
    with watchdog, quiet_tune(), recoveries(driver.goes_on), _handlers_back():
        try:
            with interruption.hurried(lambda: not driver.reported):
                tuner.fit()
        except KeyboardInterrupt:
            pass
        except Exception as error:
            failed = storage_error(error)
            if failed is None:
                raise
            driver.storage = driver.storage or storage_sentence(failed, directory)
    shutil.rmtree(storage, ignore_errors=True)
    if progress.reader_gone:
        raise BrokenPipeError
    return driver.storage or watchdog.reason or ""


def _listed(waiting: list[RunRecord], execution: Execution) -> _Source:
    """What waits, all at once."""
    names = [record.run_id for record in waiting]
    return _Source({"run_id": tune.grid_search(names)}, at_once=execution.max_concurrent or None)


def _drawn(
    draws: "Draws",
    waiting: list[RunRecord],
    roster: _Roster,
    progress: Progress,
    at_once: int,
) -> _Source:
    """What waits, then draws, each as late as can be: only when there is a place to run it."""
    from foretune.tuner.sweeps.searcher import RunSearcher

    def enter(record: RunRecord) -> None:
        roster.add(record, draws.label(record))
        progress.drawn(record.run_id, cost(record))

    def skipped(record: RunRecord, end: RunEnd) -> None:
        progress.skipped(draws.label(record), end.outcome)

    searcher = RunSearcher(draws, waiting, enter=enter, skipped=skipped)
    return _Source({}, searcher, count=len(waiting) + draws.left, at_once=at_once)


def _tuner(
    files: TrialFiles,
    source: _Source,
    execution: Execution,
    scheduler: BracketPerGroup | None,
    driver: Driver,
    early_end: EarlyEnd,
    storage: Path,
) -> tune.Tuner:
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(RunTrainable, trials=files),
            {"cpu": execution.cpus_per_trial, "gpu": execution.gpus_per_trial},
        ),
        param_space=source.space,
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            search_alg=source.searcher,
            num_samples=source.count,
            max_concurrent_trials=source.at_once,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["run_id"],
            trial_dirname_creator=lambda trial: trial.config["run_id"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[driver],
            verbose=0,
            stop=early_end,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def _roster(files: TrialFiles, journal: list[RunRecord], draws: "Draws | None") -> _Roster:
    roster = _Roster(files, {}, {}, {})
    labels = {} if draws else name_runs([record.run for record in journal])
    for record in journal:
        roster.add(record, draws.label(record) if draws else labels[record.run_id])
    return roster


def _trial_files(
    directory: Path, execution: Execution, stop: ForecastStop | None, runs: list[Run]
) -> TrialFiles:
    return TrialFiles(
        runs_dir=str(directory / "runs"),
        threads=max(1, int(execution.cpus_per_trial)),
        gpus=execution.gpus_per_trial,
        checkpoint_seconds=execution.checkpoint_seconds,
        keep_models=execution.keep_models,
        stop=stop,
        models={kind_of(run.model): type(run.model) for run in runs},
        timeout_s=execution.trial_timeout,
        secrets=kept_secrets(),
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
    return f"size {size}, {q.words}"


def _replay(scheduler: BracketPerGroup | None, directory: Path, run_ids: Iterable[str]) -> None:
    """Tells the scheduler what it would know had this process run the sweep from its start."""
    if scheduler is not None:
        for run_id in run_ids:
            scheduler.replay(run_id, *past_reports(directory / "runs" / run_id))


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
