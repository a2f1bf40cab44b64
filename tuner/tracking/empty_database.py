"""MLflow's database with nothing in it, made once and copied for every sweep.

MLflow makes one by all the migrations of its history: 3.4 s of a core where a copy takes 0.1 s
(mlflow 3.17, AMD EPYC), while the first trials train.
"""

import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from foretune.caches import cache_root
from foretune.whole_files import atomic_write


def begin_database(path: Path) -> None:
    """Puts an empty database where a sweep has none yet; where that can't be done, MLflow does."""
    if path.exists():
        return
    try:
        empty = cache_root() / f"mlflow-{version('mlflow')}.db"
        if not _is_whole(empty):
            _make(empty)
        with atomic_write(path) as partial:
            shutil.copyfile(empty, partial)
            _set_artifacts(partial, path.parent / "mlartifacts")
    except (OSError, RuntimeError, sqlite3.Error):
        return


def _make(empty: Path) -> None:
    from mlflow.tracking import MlflowClient

    empty.parent.mkdir(parents=True, exist_ok=True)
    # MLflow keeps a database open for good by its name, so each is made under another.
    with TemporaryDirectory(dir=empty.parent) as folder:
        new = Path(folder) / empty.name
        MlflowClient(f"sqlite:///{new}").get_experiment("0")
        new.replace(empty)


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()
            return found == ("ok",) and database.execute("SELECT 1 FROM runs").fetchone() is None
    except sqlite3.Error:
        return False


def _set_artifacts(path: Path, folder: Path) -> None:
    """MLflow's own experiment has its place from where the database was made."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (f"{folder.as_uri()}/0",))
