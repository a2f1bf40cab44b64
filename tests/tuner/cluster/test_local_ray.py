"""A local sweep: who listens where, who may read its files, what its end leaves behind."""

import os
import signal
import stat
from pathlib import Path

import pytest
from process_tree import below, command_of, listening, on_loopback, wait_for_end
from processes import short, start, unfinished_with_checkpoint, wait_for

from foretune.tuner.cluster import local_ray

pytestmark = pytest.mark.usefixtures("own_home")


def test_a_sweep_listens_on_the_loopback_alone_keeps_to_itself_and_ends_with_its_driver(
    text, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    driver = start(
        *("sweep", "lr", "--out", "sweep", "--sizes", "16", "--grid", "optimizer.lr=1e-2,3e-2"),
        *("--drop", "model.qk_norm", "--checkpoint-seconds", "0", *short(text, 100_000)),
        cwd=tmp_path,
    )
    wait_for(lambda: unfinished_with_checkpoint(tmp_path / "sweep"), driver)
    everyone = {driver.pid, *below(driver.pid)}
    ports = listening(everyone)
    # Driver, raylet (two), GCS, its agent for runtime environments, a worker.
    assert len({pid for pid, _ in ports}) >= 5
    assert not [(command_of(pid), where) for pid, where in ports if not on_loopback(where)]
    programs = " ".join(command_of(pid) for pid in everyone).split()
    assert not [p for p in programs if p.endswith(("dashboard.py", "monitor.py"))]
    assert not [p for p in programs if p.startswith("ray::Dashboard")]
    (folder,) = Path("/tmp").glob(f"{local_ray.PREFIX}{driver.pid}*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sockets = {word for pid in everyone for word in command_of(pid).split() if "/sockets/" in word}
    assert sockets
    assert all(f"={folder}/" in word for word in sockets)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for_end(everyone)
    assert folder.exists()
    with local_ray.private_folder():
        assert not folder.exists()


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
