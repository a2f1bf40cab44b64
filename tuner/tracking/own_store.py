"""A sweep's own MLflow database, DIR/mlflow.db: whether it is whole, and where its artifacts are.

Standard library only, like `tuner.tracking.outbox`: the driver asks it, too.
"""

import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from foretune.tuner.tracking.outbox import DamagedState, Mark, State

DATABASE = "mlflow.db"
PATIENCE_S = 30.0
"""How long another process may hold the database."""


def mend(directory: Path, state: "State | None") -> tuple["State | None", str]:
    """Returns the state that fits a sweep's own database, and what had to be mended, if anything.

    A damaged database or mlflow.json is moved aside; what MLflow had is then sent again, or found
    in the database.
    """
    path, sentence = directory / DATABASE, ""
    if state is None:
        state, sentence = _from_database(directory)
    reason = _damage(path)
    if reason:
        sentence = f"{path} was damaged ({reason}) and is kept as {_aside(path).name}"
    elif state is None or not state.parent_run_id or _has_run(path, state.parent_run_id):
        return state, sentence
    else:
        sentence = f"{path} has not what was sent to it"
    if state is None:
        return None, f"{sentence}."
    fresh = State(sweep_key=uuid.uuid4().hex, experiment=state.experiment)
    return fresh, f"{sentence}; the whole sweep is sent again."


def put_here(directory: Path, state: State) -> None:
    """Says in a sweep's own database that artifacts are below its directory, wherever that is now.

    MLflow keeps absolute paths: a copy's would be those of the original, and those of a directory
    from elsewhere could be any.
    """
    path = directory / DATABASE
    if not path.exists():
        return
    root = (directory / "mlartifacts").as_uri()
    with _open(path) as database:
        if not _tables(database) >= {"experiments", "runs", "tags"}:
            return
        ours = (
            "SELECT run_uuid FROM tags WHERE key = 'foretune.sweep' AND value = ? "
            "UNION SELECT run_uuid FROM runs WHERE run_uuid = ?"
        )
        with database:
            database.execute(
                "UPDATE experiments SET artifact_location = ? "
                "WHERE (name = ? OR CAST(experiment_id AS TEXT) = ?) AND artifact_location != ?",
                (root, state.experiment, state.experiment_id, root),
            )
            key = state.sweep_key, state.parent_run_id
            for (run,) in database.execute(ours, key).fetchall():
                uri = f"{root}/{re.sub(r'[^0-9a-f]', '', run)}/artifacts"
                database.execute(
                    "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ? AND artifact_uri != ?",
                    (uri, run, uri),
                )


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as database:
        yield database


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def _damage(path: Path) -> str:
    """Why a file is no whole database of MLflow's; empty for one that is, or isn't there."""
    if not path.exists() or path.stat().st_size == 0:
        return ""
    try:
        with _open(path) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found == "ok" and "runs" not in _tables(database):
                return "it is not MLflow's"
            return "" if found == "ok" else str(found).partition("\n")[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ""  # Who works with it finds it whole.
        return str(error)
    except sqlite3.DatabaseError as error:
        return str(error)


def _has_run(path: Path, run: str) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with _open(path) as database:
        found = database.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run,))
        return found.fetchone() is not None


def _aside(path: Path) -> Path:
    """Moves a damaged file, with what belongs to it, to the first name that is free."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.replace(kept)
    for end in ("-journal", "-wal", "-shm"):
        if (more := path.with_name(path.name + end)).exists():
            more.replace(kept.with_name(kept.name + end))
    return kept


def _from_database(directory: Path) -> tuple["State | None", str]:
    """The state of a damaged mlflow.json, as far as the database has it; none without one."""
    try:
        return State.load(directory), ""
    except DamagedState as error:
        kept = _aside(directory / "mlflow.json")
        path = directory / DATABASE
        found = None if _damage(path) else _newest(path)
        then = "what was sent is read from mlflow.db" if found else "the whole sweep is sent again"
        return found, f"{error}; it is kept as {kept.name}, and {then}."


def _newest(path: Path) -> "State | None":
    """What the database has of the sweep that began last: a directory has one."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    runs = (
        "SELECT r.run_uuid, r.start_time, r.status, r.experiment_id, e.name, k.value, t.value "
        "FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id "
        "JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'foretune.sweep' "
        "LEFT JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'foretune.run_id' "
        "WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time"
    )
    with _open(path) as database:
        rows = database.execute(runs).fetchall()
    sweeps = [row for row in rows if row[6] is None]
    if not sweeps:
        return None
    run, _, status, experiment_id, experiment, key, _ = sweeps[-1]
    return State(
        sweep_key=key,
        experiment=experiment,
        experiment_id=str(experiment_id),
        parent_run_id=run,
        parent_status=status,
        runs={
            row[6]: Mark(row[0], row[1], status=row[2]) for row in rows if row[5] == key and row[6]
        },
    )
