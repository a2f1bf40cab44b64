"""The journal of a sweep: its directory, written before the first trial, read again by `resume`.

A run with `run.json` and no `outcome.json` is unfinished. `run_json`, `outcome_json` and
`sweep_json` beside this have the files.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretune.analysis.records.checksum import CHECKSUMS_FILE
from foretune.analysis.records.rows import whole_lines
from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.kept_secrets import check_kept
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import load_source
from foretune.tuner.records.damage import own_record, why_not_ended
from foretune.tuner.records.files import METRICS_FILE, check_writable
from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd
from foretune.tuner.records.restart import restart_of
from foretune.tuner.records.run_json import RunRecord, describe
from foretune.tuner.records.sweep_json import SWEEP_FILE, SweepRecord
from foretune.tuner.training.outcome import objective


def check_new(directory: Path) -> None:
    """Raises ValueError where a directory holds a sweep, or runs of `foretune train`."""
    if holds_sweep(directory):
        raise ArgumentError(
            Argument("out"),
            f" must be a new directory, got {directory}, which holds a sweep; continue it with "
            f"'foretune resume {directory}' or name another.",
        )
    runs = directory / "runs"
    if os.path.exists(runs) and not all(map(_unbegun, runs.iterdir())):
        raise ArgumentError(
            Argument("out"),
            f" must be a new directory, got {directory}, which holds runs of foretune train; name "
            f"another.",
        )


def _unbegun(folder: Path) -> bool:
    """Whether a run was being written down, and has never begun: a sweep ended there before its
    sweep.json."""
    if not folder.is_dir():
        return False
    names = {path.name.removesuffix(".partial") for path in folder.iterdir()}
    return names <= {"run.json", CHECKSUMS_FILE}


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
    for folder in (directory / "runs").glob("*/"):  # None has begun.
        shutil.rmtree(folder)
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


def read_runs(
    directory: Path, *, repair: Callable[[str], object] | None = None
) -> tuple[list[RunRecord], list[RunRecord]]:
    """Returns the runs without an outcome and those with one.

    One whose run.json is damaged is left out, since nobody knows it. One whose outcome.json can't
    be believed counts as without: repair takes that file away; it is called with a sentence on all
    that is damaged. Raises ValueError where the text of a run has changed, and where a run needs
    code of a user's own that nobody has asked for.
    """
    say = repair or (lambda sentence: None)
    waiting: list[RunRecord] = []
    ended: list[RunRecord] = []
    texts: dict[Any, str] = {}
    lost = 0
    for folder in sorted((directory / "runs").glob("*/")):
        try:
            record = own_record(folder)
        except ArgumentError:  # Of code that nobody has asked for.
            raise
        except ValueError as error:
            say(f"Run {folder.name} is left out: {error}")
            lost += 1
            continue
        if record is None:
            continue
        _check_text(record, texts)
        why = why_not_ended(folder, record)
        if why:
            say(f"Run {folder.name} is trained again: {why}")
            if repair:
                (folder / OUTCOME_FILE).unlink()
        if why or not (folder / OUTCOME_FILE).exists():
            check_kept(record.run)
            waiting.append(record)
            restart = restart_of(folder, record.run)
            if restart.wrong:
                say(f"Run {folder.name}: {restart.note}")
        else:
            ended.append(record)
    gone = _gone(directory, found := len(waiting) + len(ended) + lost)
    if gone:
        say(
            f"Of the {gone + found} runs that {SWEEP_FILE} counts {gone} can't be found in "
            f"{directory / 'runs'}; restore what is missing, or start a new sweep."
        )
    return waiting, ended


def _check_text(record: RunRecord, texts: dict[Any, str]) -> None:
    data = record.run.data
    if data not in texts:
        texts[data] = load_source(data).sha256
    if texts[data] != record.data_sha256:
        raise ValueError(
            f"The text of {data.name} must be the one that the sweep began with, got "
            f"another (a different Python or a changed file); restore it or start a new sweep."
        )


def count_outcomes(directory: Path) -> dict[str, int]:
    """Returns how many runs of a sweep ended how.

    `unfinished` counts those without an outcome, `lost` those whose records are damaged or gone.
    """
    counts: dict[str, int] = {}
    for folder in sorted((directory / "runs").glob("*/")):
        try:
            if own_record(folder) is None:
                continue
            end = RunEnd.read(folder)
            name = end.outcome.outcome if end else "unfinished"
        except ValueError:
            name = "lost"
        counts[name] = counts.get(name, 0) + 1
    gone = _gone(directory, sum(counts.values()))
    return {**counts, "lost": counts.get("lost", 0) + gone} if gone else counts


def _gone(directory: Path, found: int) -> int:
    """How many runs have no folder; a search has as many as it has drawn."""
    if not holds_sweep(directory):
        return 0
    sweep = SweepRecord.read(directory)
    return max(0, sweep.trials - found) if sweep.draws is None else 0


def past_reports(run_dir: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Returns what a scheduler got of a run and won't get again: its reports, and its end.

    A run without an outcome has no end, and its reports are those up to its checkpoint: it goes on
    from there, and the later ones come again.
    """
    lines = whole_lines(run_dir / METRICS_FILE)
    rows = [json.loads(line) for line in lines]
    losses = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    ended, end = RunEnd.read(run_dir), None
    if ended is not None:
        outcome = ended.outcome
        end = {"step": outcome.step, "objective": ended.objective}
        # A run that finishes reports its last validation as its end.
        last = outcome.step - (outcome.outcome == "finished")
    else:
        restart = restart_of(run_dir)
        last = restart.step
        if restart.val_loss is not None:  # Its row is written with the next update, which a kill
            losses[last] = restart.val_loss  # prevents.
    at_init = losses.get(0)
    reports = [
        {"step": step, "objective": objective(at_init, loss)}
        for step, loss in losses.items()
        if 0 < step <= last
    ]
    return reports, end
