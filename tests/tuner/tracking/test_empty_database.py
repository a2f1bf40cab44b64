"""A sweep's database is a copy of an empty one, which MLflow makes once."""

from pathlib import Path

import mlflow
import mlflow.store.db.utils as mlflow_db
import pytest
from mlflow.tracking import MlflowClient

from foretune.tuner.tracking import empty_database
from foretune.tuner.tracking.empty_database import begin_database


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """Databases that MLflow makes by its migrations; the cache is empty."""
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    engines, upgrade = [], mlflow_db._upgrade_db

    def noted(engine: object) -> None:
        engines.append(engine)
        upgrade(engine)

    monkeypatch.setattr(mlflow_db, "_upgrade_db", noted)
    return engines


def begun(folder: Path) -> Path:
    folder.mkdir()
    begin_database(folder / "mlflow.db")
    return folder / "mlflow.db"


def test_it_is_what_mlflow_makes_and_is_made_once(made: list[object], tmp_path: Path):
    first, second = begun(tmp_path / "a"), begun(tmp_path / "my 100% sweep")
    assert len(made) == 1
    client = MlflowClient(f"sqlite:///{second}")
    assert [e.artifact_location for e in client.search_experiments()] == [
        f"{second.parent.as_uri()}/mlartifacts/0"
    ]
    client.create_run("0")  # MLflow refuses a database that isn't of its last migration.
    assert len(made) == 1
    assert not MlflowClient(f"sqlite:///{first}").search_runs(["0"])


def test_one_that_is_there_is_left_alone(tmp_path: Path):
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"somebody's")
    begin_database(path)
    assert path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("damage", ["cut", "noise", "used"])
def test_a_damaged_one_in_the_cache_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: str
):
    whole = begun(tmp_path / "a").read_bytes()
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(empty_database, "_make", lambda empty: empty.write_bytes(whole))
    empty = tmp_path / "cache" / f"mlflow-{mlflow.__version__}.db"
    empty.parent.mkdir()
    empty.write_bytes({"cut": whole[: len(whole) // 2], "noise": b"noise" * 9}.get(damage, whole))
    if damage == "used":
        MlflowClient(f"sqlite:///{empty}").create_run("0")
    begun(tmp_path / "b")
    assert empty.read_bytes() == whole


def test_without_a_cache_mlflow_makes_the_database_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "file"))
    assert not begun(tmp_path / "a").exists()
