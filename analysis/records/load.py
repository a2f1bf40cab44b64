"""A sweep's directory as two tidy tables: one row per run, and one row per run and step.

`load` reads the Parquet files where they are newer than everything a run wrote, else the runs
themselves; `collect` rebuilds the Parquet files. Neither needs Ray or torch.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foretune.analysis.records.run_files import RUN_FILES, read_json, read_run
from foretune.analysis.records.schema import (
    FORMAT,
    OUTCOMES,
    REQUIRED_TELEMETRY,
    TRIAL_COLUMNS,
    UNFINISHED,
)
from foretune.redaction import hides, shown
from foretune.whole_files import atomic_write

TABLES = ("trials.parquet", "telemetry.parquet")
TEXT_COLUMNS = ("run_id", "outcome", "reason", "tensor", "data_sha256")


@dataclass(frozen=True, slots=True)
class Records:
    """What a sweep measured, and in `status` how complete it is."""

    directory: Path
    sweep: dict[str, Any]
    """The content of `sweep.json`; empty where that file is missing."""
    trials: pd.DataFrame
    """One row per run; columns in `analysis.records.schema.TRIAL_COLUMNS`, and one per config
    field; `***` for a secret in one."""
    telemetry: pd.DataFrame
    """One row per run and step, sorted; columns in `analysis.records.schema.TELEMETRY_COLUMNS`."""
    status: str
    left_out: tuple[str, ...] = ()
    """A sentence for each run whose files are damaged: it is in no table."""


def load(directory: str | os.PathLike[str]) -> Records:
    """The records of a sweep, from its tables where they are fresh, else from its runs.

    A damaged run is left out, and named.
    """
    root = _sweep_directory(directory)
    tables = _fresh_tables(root)
    if tables is None:
        return _records(root, *_read_runs(root))
    trials, telemetry = tables
    return _records(root, _without_secrets(trials), telemetry, ())


def collect(directory: str | os.PathLike[str]) -> Records:
    """The records of a sweep, read from its runs; writes both tables, each in one atomic step.

    A damaged run is left out, and named.
    """
    root = _sweep_directory(directory)
    trials, telemetry, left_out = _read_runs(root)
    for name, frame in zip(TABLES, (trials, telemetry), strict=True):
        with atomic_write(root / name, shared=True) as partial:
            frame.to_parquet(partial, index=False, write_page_checksum=True)
    trials, telemetry = (_read_table(root / name) for name in TABLES)
    return _records(root, trials, telemetry, left_out)


def _sweep_directory(directory: str | os.PathLike[str]) -> Path:
    root = Path(directory)
    if not root.is_dir():
        raise ValueError(
            f"a sweep's directory must exist, got {root}; give the directory that "
            "`foretune sweep --out` wrote"
        )
    if (root / "run.json").exists():
        raise ValueError(
            f"a sweep's directory holds sweep.json and runs/, got the directory of one run, {root};"
            " give the sweep that contains it"
        )
    if not (root / "sweep.json").exists() and not (root / "runs").is_dir():
        raise ValueError(
            f"a sweep's directory holds sweep.json and runs/, got {root}, which holds neither; "
            "give the directory that `foretune sweep --out` wrote"
        )
    return root


def _run_directories(root: Path) -> list[Path]:
    runs = root / "runs"
    return sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []


def _fresh_tables(root: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Both tables, where they are newer than all that they were made of, whole, and of all runs."""
    tables = [root / name for name in TABLES]
    if not all(path.exists() for path in tables):
        return None
    oldest = min(path.stat().st_mtime_ns for path in tables)
    if not all(_modified(path) < oldest for path in _sources(root)):
        return None
    try:
        trials, telemetry = map(_read_table, tables)
    except Exception:  # Whatever Arrow makes of random bytes.
        return None
    complete = set(TRIAL_COLUMNS) <= set(trials.columns) and "step" in telemetry.columns
    # Copied directories keep their old times, so a table can be newer and still lack runs.
    if complete and len(trials) == sum(1 for _ in root.glob("runs/*/run.json")):
        return trials, telemetry
    return None


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, page_checksum_verification=True)


def _sources(root: Path) -> Iterator[Path]:
    """Every path whose change makes the tables stale; `runs` itself shows a removed run."""
    yield root / "runs"
    for run in _run_directories(root):
        yield from (run / name for name in RUN_FILES)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _read_runs(root: Path) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    read: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    left_out = []
    for path in _run_directories(root):
        try:
            run = read_run(path)
            if run is not None:
                _check_alone(path, run[0]["run_id"], read)
                read[run[0]["run_id"]] = run
        except (ValueError, OSError) as error:
            left_out.append(f"run {path.name} is left out: {error}")
    trials, telemetry = zip(*read.values(), strict=True) if read else ((), ())
    return _trials(list(trials)), _telemetry(list(telemetry)), tuple(left_out)


def _check_alone(path: Path, run_id: str, others: Mapping[str, Any]) -> None:
    if run_id in others:
        raise ValueError(
            f"{path / 'run.json'} must be of a run of its own, got {run_id} again; remove the copy"
        )


def _trials(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for name in TRIAL_COLUMNS:
        if name not in frame:
            frame[name] = ""
    config = sorted(set(frame.columns) - set(TRIAL_COLUMNS))
    frame = frame[[*TRIAL_COLUMNS, *config]]
    kinds = {name: "str" for name in TEXT_COLUMNS} | {"diverged": "bool"}
    for name in frame.columns:
        if name in kinds:
            frame[name] = frame[name].astype(kinds[name])
        elif name in TRIAL_COLUMNS:
            frame[name] = pd.to_numeric(frame[name]).astype("float64")
        else:
            frame[name] = _uniform(frame[name])
    return _without_secrets(frame.sort_values("run_id", ignore_index=True))


def _without_secrets(trials: pd.DataFrame) -> pd.DataFrame:
    """The table with `***` for secrets in configs, which an older version has written down."""
    for name in trials.columns.difference(TRIAL_COLUMNS):
        values = trials[name].dropna().unique()
        secret = {value: shown(name, value) for value in values if hides(name, value)}
        if secret:
            trials[name] = trials[name].replace(secret)
    return trials


def _uniform(column: pd.Series) -> pd.Series:
    """A config column with one type, so that Parquet returns what it was given."""
    known = column.dropna()
    if known.empty:
        return column.astype("str")
    if known.map(lambda value: isinstance(value, bool)).all():
        return column.astype("bool" if len(known) == len(column) else "boolean")
    numbers = known.map(lambda v: isinstance(v, int | float) and not isinstance(v, bool))
    if numbers.all():
        whole = len(known) == len(column) and known.map(lambda v: isinstance(v, int)).all()
        return pd.to_numeric(column).astype("int64" if whole else "float64")
    return column.map(lambda value: value if pd.isna(value) else str(value)).astype("str")


def _telemetry(runs: list[list[dict[str, Any]]]) -> pd.DataFrame:
    frame = pd.DataFrame([row for rows in runs for row in rows])
    for name in REQUIRED_TELEMETRY:
        if name not in frame:
            frame[name] = float("nan")
    others = sorted(set(frame.columns) - set(REQUIRED_TELEMETRY))
    frame = frame[[*REQUIRED_TELEMETRY, *others]]
    numbers = {name: "float64" for name in frame.columns if name not in ("run_id", "step")}
    frame = frame.astype({"run_id": "str", "step": "int64"} | numbers)
    if frame.duplicated(["run_id", "step"]).any():
        # Evaluation may write its own row for a step, and a resumed run repeats some.
        frame = frame.groupby(["run_id", "step"], as_index=False).last()
    return frame.sort_values(["run_id", "step"], ignore_index=True)


def _records(
    root: Path, trials: pd.DataFrame, telemetry: pd.DataFrame, left_out: tuple[str, ...]
) -> Records:
    path = root / "sweep.json"
    try:
        sweep = read_json(path) if path.exists() else {}
    except ValueError as error:
        sweep, left_out = {}, (*left_out, f"sweep.json is left out: {error}")
    if sweep.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{path} must have format {FORMAT}, got {sweep['format']!r}; read it with the version "
            "of foretune that wrote it"
        )
    status = _status(root, sweep, trials, left_out)
    return Records(root, sweep, trials, telemetry, status, left_out)


def _status(
    root: Path, sweep: dict[str, Any], trials: pd.DataFrame, left_out: tuple[str, ...]
) -> str:
    counts = trials["outcome"].value_counts()
    parts = [f"{counts[name]} {name}" for name in OUTCOMES if counts.get(name, 0)]
    text = f"{len(trials)} runs: {', '.join(parts)}" if parts else "no run has started yet"
    folders = _run_directories(root)
    without = sum(not (path / "run.json").exists() for path in folders)
    if without:
        text += f"; {without} run directories hold no run.json yet and are left out"
    if damaged := len(folders) - without - len(trials):
        text += f"; {damaged} damaged run{'s' * (damaged > 1)} left out"
    if counts.get(UNFINISHED, 0):
        text += "; unfinished runs are left out of every verdict"
    return text if sweep else f"{text}; sweep.json is missing or damaged, so the command is unknown"
