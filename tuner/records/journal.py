"""The journal of a sweep: its directory, written before the first trial, read again by `resume`.

A run with `run.json` and no `outcome.json` is unfinished. `run_json`, `outcome_json` and
`sweep_json` beside this have the files.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretune.analysis.records.run_files import read_metrics
from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.kept_secrets import check_kept
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import load_source
from foretune.tuner.records.files import check_writable
from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd
from foretune.tuner.records.run_json import RunRecord, describe, is_named
from foretune.tuner.records.sweep_json import SWEEP_FILE, SweepRecord
from foretune.tuner.training.checkpoint import peek
from foretune.tuner.training.outcome import objective


def check_new(directory: Path) -> None:
    """Raises ValueError where a directory holds a sweep, or runs of `foretune train`."""
    if holds_sweep(directory):
        raise ArgumentError(
            Argument("out"),
            f" must be a new directory, got {directory}, which holds a sweep; continue it with "
            f"'foretune resume {directory}' or name another.",
        )
    if os.path.exists(directory / "runs"):
        raise ArgumentError(
            Argument("out"),
            f" must be a new directory, got {directory}, which holds runs of foretune train; name "
            f"another.",
        )


def holds_sweep(directory: Path) -> bool:
    """Whether a directory is one of a sweep."""
    # os.path: a folder that may not be looked into is left for `check_writable` to name.
    return os.path.exists(directory / SWEEP_FILE)


@contextmanager
def new_folder(directory: Path) -> Iterator[None]:
    """Makes a directory; if the block raises while it is empty, takes it away again.

    Raises ValueError where it can't be written.
    """
    made = [path for path in (directory, *directory.parents) if not os.path.exists(path)]
    try:
        check_writable(directory)
        yield
    except BaseException:
        with suppress(OSError):  # The first that isn't empty stays, and with it those around it.
            for path in made:
                path.rmdir()
        raise


def describe_all(runs: list[Run]) -> list[RunRecord]:
    """Returns the record of every run; ValueError for a model that can't be built."""
    hashes = {run.data: load_source(run.data).sha256 for run in runs}
    return [replace(describe(run), data_sha256=hashes[run.data]) for run in runs]


def write_down(
    directory: Path,
    runs: list[RunRecord],
    sweep: SweepRecord,
    ended: Iterable[RunEnd] = (),
) -> None:
    """Writes every run.json, then sweep.json, into a new directory.

    ended are those of the runs that are over before they begin. Raises ValueError where the
    directory holds another sweep.
    """
    check_new(directory)
    for record in (*runs, *ended):
        record.write(directory / "runs" / record.run_id)
    (directory / "runs").mkdir(parents=True, exist_ok=True)  # A search has no runs yet.
    sweep.write(directory)


def enlarge(directory: Path, runs: list[RunRecord], plan: Mapping[str, Any]) -> int:
    """Adds those of the runs to a sweep that it doesn't have, and to its plan what has changed.

    runs are all those of the sweep; returns how many were added. What is there stays as it is, so
    the same call finishes one that was interrupted.
    """
    folders = {run.run_id: directory / "runs" / run.run_id for run in runs}
    new = [run for run in runs if not (folders[run.run_id] / "run.json").exists()]
    for run in new:
        run.write(folders[run.run_id])
    sweep = SweepRecord.read(directory)
    replace(sweep, plan={**sweep.plan, **plan}, trials=len(runs)).write(directory)
    return len(new)


def read_runs(directory: Path) -> tuple[list[RunRecord], list[RunRecord]]:
    """Returns the runs without an outcome and those with one.

    Raises ValueError where a run is not the one that its folder is named after, or its text has
    changed.
    """
    waiting, ended = [], []
    for path in sorted((directory / "runs").glob("*/run.json")):
        record = RunRecord.read(path.parent)
        if record.run_id != path.parent.name or not is_named(record.run_id, record.run):
            raise ValueError(
                f"{path} must hold the run that its folder is named after, got another config; "
                f"restore it."
            )
        data = record.run.data
        if load_source(data).sha256 != record.data_sha256:
            raise ValueError(
                f"The text of {data.name} must be the one that the sweep began with, got "
                f"another (a different Python or a changed file); restore it or start a new sweep."
            )
        if (path.parent / OUTCOME_FILE).exists():
            ended.append(record)
        else:
            check_kept(record.run)
            waiting.append(record)
    return waiting, ended


def count_outcomes(directory: Path) -> dict[str, int]:
    """Returns how many runs of a sweep ended how; `unfinished` counts those without an outcome."""
    counts: dict[str, int] = {}
    for run_json in sorted((directory / "runs").glob("*/run.json")):
        end = RunEnd.read(run_json.parent)
        name = end.outcome.outcome if end else "unfinished"
        counts[name] = counts.get(name, 0) + 1
    return counts


def past_reports(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns what a scheduler got of a run and won't get again: its reports, and its end.

    A run without an outcome has no end, and its reports are those up to its checkpoint: it goes on
    from there, and the later ones come again.
    """
    losses = {
        row["step"]: row["val_loss"]
        for row in read_metrics(run_dir / "metrics.jsonl")
        if "val_loss" in row
    }
    ended, end = RunEnd.read(run_dir), None
    if ended is not None:
        outcome = ended.outcome
        end = {"step": outcome.step, "objective": ended.objective}
        # A run that finishes reports its last validation as its end.
        last = outcome.step - (outcome.outcome == "finished")
    else:
        last, loss = _checkpointed(run_dir / "checkpoint")
        if loss is not None:  # Its row is written with the next update, which a kill prevents.
            losses[last] = loss
    at_init = losses.get(0)
    reports = [
        {"step": step, "objective": objective(at_init, loss)}
        for step, loss in losses.items()
        if 0 < step <= last
    ]
    return reports, end


def _checkpointed(directory: Path) -> tuple[int, float | None]:
    """Step of a checkpoint, and the validation loss at that step; 0 and none without one."""
    state = peek(directory)
    return (int(state["step"]), state["row"].get("val_loss")) if state else (0, None)
