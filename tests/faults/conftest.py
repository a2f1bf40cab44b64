import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text of 40 KB: the source of Python's `os` module."""
    path = tmp_path_factory.mktemp("text") / "os.txt"
    path.write_bytes(Path(os.__file__).read_bytes()[:40_000])
    return path
