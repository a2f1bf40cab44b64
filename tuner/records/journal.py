"""The journal of a sweep: its directory, written before the first trial, read again by `resume`.

A run with `run.json` and no `outcome.json` is unfinished; see `tuner.records.run_json` for single
files.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foretune.analysis.records.run_files import read_metrics
from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import load_source
from foretune.tuner.records.files import check_writable, read_json, write_json
from foretune.tuner.records.run_json import describe, from_config, run_id
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
    return os.path.exists(directory / "sweep.json")


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


def describe_all(runs: list[Run]) -> list[dict[str, Any]]:
    """Returns the content of every run.json; ValueError for a model that can't be built."""
    hashes = {run.data: load_source(run.data).sha256 for run in runs}
    return [{**describe(run), "data_sha256": hashes[run.data]} for run in runs]


def write_down(
    directory: Path,
    runs: list[dict[str, Any]],
    facts: Mapping[str, Any],
    ended: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Writes every run.json, as `describe_all` gives them, then sweep.json, into a new directory.

    ended holds the outcome.json of runs that are over before they begin, by id. Raises ValueError
    where the directory holds another sweep.
    """
    check_new(directory)
    for run in runs:
        write_json(directory / "runs" / run["run_id"] / "run.json", run)
    for name, outcome in (ended or {}).items():
        write_json(directory / "runs" / name / "outcome.json", outcome)
    (directory / "runs").mkdir(parents=True, exist_ok=True)  # A search has no runs yet.
    write_json(directory / "sweep.json", facts)


def enlarge(directory: Path, runs: list[dict[str, Any]], facts: Mapping[str, Any]) -> int:
    """Adds those of the runs to a sweep that it doesn't have, and facts to its sweep.json.

    runs are as `describe_all` gives them, of all of the sweep; returns how many were added. What is
    there stays as it is, so the same call finishes one that was interrupted.
    """
    paths = {run["run_id"]: directory / "runs" / run["run_id"] / "run.json" for run in runs}
    new = [run for run in runs if not paths[run["run_id"]].exists()]
    for run in new:
        write_json(paths[run["run_id"]], run)
    write_json(directory / "sweep.json", {**read_sweep(directory), **facts, "trials": len(runs)})
    return len(new)


def read_sweep(directory: Path) -> dict[str, Any]:
    """Returns `sweep.json`; ValueError where there is none."""
    path = directory / "sweep.json"
    if not path.is_file():
        raise ValueError(f"DIR must hold a sweep, got {directory} without sweep.json.")
    return read_json(path)


def read_runs(directory: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the run.json of runs without an outcome and of those with one, `run` added to each.

    Raises ValueError where a run is not the one that its folder is named after, or its text has
    changed.
    """
    waiting, ended = [], []
    for path in sorted((directory / "runs").glob("*/run.json")):
        facts = read_json(path)
        run = from_config(facts["config"])
        if run_id(run) != facts["run_id"] or facts["run_id"] != path.parent.name:
            raise ValueError(
                f"{path} must hold the run that its folder is named after, got another config; "
                f"restore it."
            )
        if load_source(run.data).sha256 != facts["data_sha256"]:
            raise ValueError(
                f"The text of {run.data.name} must be the one that the sweep began with, got "
                f"another (a different Python or a changed file); restore it or start a new sweep."
            )
        facts["run"] = run
        (ended if (path.parent / "outcome.json").exists() else waiting).append(facts)
    return waiting, ended


def count_outcomes(directory: Path) -> dict[str, int]:
    """Returns how many runs of a sweep ended how; `unfinished` counts those without an outcome."""
    counts: dict[str, int] = {}
    for run_json in sorted((directory / "runs").glob("*/run.json")):
        path = run_json.with_name("outcome.json")
        name = read_json(path)["outcome"] if path.exists() else "unfinished"
        counts[name] = counts.get(name, 0) + 1
    return counts


def past_reports(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns what a scheduler heard of a run and won't hear again: its reports, and its end.

    A run without an outcome has no end, and its reports are those up to its checkpoint: it goes on
    from there, and the later ones come again.
    """
    losses = {
        row["step"]: row["val_loss"]
        for row in read_metrics(run_dir / "metrics.jsonl")
        if "val_loss" in row
    }
    end = None
    if (run_dir / "outcome.json").exists():
        outcome = read_json(run_dir / "outcome.json")
        end = {"step": outcome["step"], "objective": outcome["objective"]}
        # A run that finishes reports its last validation as its end.
        last = outcome["step"] - (outcome["outcome"] == "finished")
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
