"""The folder of a local sweep's Ray: its name, and whose it is."""

import os
from pathlib import Path

import pytest

from foretune.tuner.cluster import local_ray

pytestmark = pytest.mark.usefixtures("own_home")


def test_a_folder_of_somebody_else_or_of_a_sweep_that_runs_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    other = tmp_path / "kept"
    other.mkdir()
    link = Path("/tmp") / f"{local_ray.PREFIX}{os.getpid()}"
    link.symlink_to(other)
    try:
        with local_ray.private_folder() as mine:
            with local_ray.private_folder() as next_one:
                assert mine != next_one
            assert mine.exists()
            assert not next_one.exists()
            assert other.exists()
    finally:
        link.unlink()
    assert not mine.exists()


def test_a_folder_too_long_for_sockets_is_one_sentence_before_ray_starts(tmp_path, monkeypatch):
    long = tmp_path / "long"
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with (
        pytest.raises(ValueError, match=r"^RAY_TMPDIR must have at most \d+ letters.*a link"),
        local_ray.private_folder(),
    ):
        pass
    link = Path("/tmp") / f"ft-{os.getpid()}"
    link.symlink_to(long)
    monkeypatch.setenv("RAY_TMPDIR", str(link))
    try:
        with local_ray.private_folder() as folder:
            assert [path.name for path in long.iterdir()] == [folder.name]
    finally:
        link.unlink()
    assert list(long.iterdir()) == []
