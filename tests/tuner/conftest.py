import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def ended_with_the_file():
    """What a file's own set-up started and left behind, because it failed."""
    yield
    end_leavings()


@pytest.fixture(autouse=True)
def _nothing_is_left(ended_with_the_file) -> Iterator[None]:
    """Ends the processes that a test left behind, because it failed."""
    yield
    end_leavings()


def end_leavings() -> None:
    """Ends what `processes` and `mlflow_sweeps` have started, where they were used."""
    for name in ("processes", "mlflow_sweeps"):
        if name in sys.modules:
            sys.modules[name].end_started()


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text of 40 KB: the source of Python's `os` module."""
    path = tmp_path_factory.mktemp("text") / "os.txt"
    path.write_bytes(Path(os.__file__).read_bytes()[:40_000])
    return path


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port where nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as held:
        # Who binds with this option as well, as servers do, may take it over: it doesn't listen.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of the user's and no cluster named in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes 1.5 s."""
    from mlflow.tracking import MlflowClient  # About 2 s, which other tests needn't wait for.

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def new_dir(tmp_path: Path) -> Path:
    """A sweep without trials, and no database yet."""
    from mlflow_sweeps import add_sweep

    return add_sweep(tmp_path / "my sweep")


@pytest.fixture
def sweep_dir(new_dir: Path, empty_store: Path) -> Path:
    """A sweep without trials, with a database of its own."""
    shutil.copy(empty_store, new_dir / "mlflow.db")
    return new_dir
