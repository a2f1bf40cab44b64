"""A sweep's directory as two tidy tables: one row per run, and one row per run and step.

`load` reads the Parquet files where they are newer than everything a run wrote, else the runs
themselves; `collect` rebuilds the Parquet files. Neither needs Ray or torch.
"""

import os
from collections.abc import Iterator
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


def load(directory: str | os.PathLike[str]) -> Records:
    """The records of a sweep, from its tables where they are fresh, else from its runs."""
    root = _sweep_directory(directory)
    if _tables_are_fresh(root):
        trials, telemetry = (pd.read_parquet(root / name) for name in TABLES)
        trials = _without_secrets(trials)
        complete = set(TRIAL_COLUMNS) <= set(trials.columns) and "step" in telemetry.columns
        # Copied directories keep their old times, so a table can be newer and still lack runs.
        if complete and len(trials) == sum(1 for _ in root.glob("runs/*/run.json")):
            return _records(root, trials, telemetry)
    return _records(root, *_read_runs(root))


def collect(directory: str | os.PathLike[str]) -> Records:
    """The records of a sweep, read from its runs; writes both tables, each in one atomic step."""
    root = _sweep_directory(directory)
    trials, telemetry = _read_runs(root)
    for name, frame in zip(TABLES, (trials, telemetry), strict=True):
        with atomic_write(root / name, shared=True) as partial:
            frame.to_parquet(partial, index=False)
    return _records(root, *(pd.read_parquet(root / name) for name in TABLES))


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


def _tables_are_fresh(root: Path) -> bool:
    tables = [root / name for name in TABLES]
    if not all(path.exists() for path in tables):
        return False
    oldest = min(path.stat().st_mtime_ns for path in tables)
    return all(_modified(path) < oldest for path in _sources(root))


def _sources(root: Path) -> Iterator[Path]:
    """Every path whose change makes the tables stale; `runs` itself shows a removed run."""
    yield root / "runs"
    for run in _run_directories(root):
        yield from (run / name for name in RUN_FILES)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _read_runs(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    read = [run for path in _run_directories(root) if (run := read_run(path)) is not None]
    return _trials([trial for trial, _ in read]), _telemetry([rows for _, rows in read])


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


def _records(root: Path, trials: pd.DataFrame, telemetry: pd.DataFrame) -> Records:
    path = root / "sweep.json"
    sweep = read_json(path) if path.exists() else {}
    if sweep.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{path} must have format {FORMAT}, got {sweep['format']!r}; read it with the version "
            "of foretune that wrote it"
        )
    return Records(root, sweep, trials, telemetry, _status(root, sweep, trials))


def _status(root: Path, sweep: dict[str, Any], trials: pd.DataFrame) -> str:
    counts = trials["outcome"].value_counts()
    parts = [f"{counts[name]} {name}" for name in OUTCOMES if counts.get(name, 0)]
    text = f"{len(trials)} runs: {', '.join(parts)}" if parts else "no run has started yet"
    without = len(_run_directories(root)) - len(trials)
    if (root / "runs").is_dir() and without > 0:
        text += f"; {without} run directories hold no run.json yet and are left out"
    if counts.get(UNFINISHED, 0):
        text += "; unfinished runs are left out of every verdict"
    return text if sweep else f"{text}; sweep.json is missing, so the command is unknown"
