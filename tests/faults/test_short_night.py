"""A short slice of the table: a local sweep, looked at while it runs, killed, damaged, and resumed.

`make test-all` tries all of it.
"""

import contextlib
import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from checks import wrong
from damage import flip
from place import STEPS, Place, References
from process_tree import below, command_of, listening, on_loopback, wait_for_end
from processes import here
from sweeps import settings

from foretune import load
from foretune.analysis.records.load import TABLES
from foretune.tuner.cluster import local_ray

RATES = ("1e-2", "3e-2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A place of two trials, held against plain training, which must give the same records."""
    folder = tmp_path_factory.mktemp("night")
    references = References(folder / "undisturbed")
    made = Place(references, folder / "place", seed=3)
    for rate in RATES:
        here(
            *("train", "lm-tiny", "--size", "16", "--out", "sweep", "--device", "cpu"),
            *settings(made.text), f"optimizer.lr={rate}", cwd=references.folder,
        )  # fmt: skip
    made.expected = references.folder / "sweep"
    with tempfile.TemporaryDirectory(prefix="r") as short:  # Sockets' paths must be.
        made.environment["RAY_TMPDIR"] = short
        yield made
        made.close()


@pytest.fixture(scope="module")
def driver(place):
    """A sweep in training, whose workers stand still as long as one looks."""
    command = place.start(
        *("sweep", "lr", "--out", place.out, "--sizes", "16", "--drop", "model.qk_norm"),
        *("--grid", f"optimizer.lr={','.join(RATES)}", "--checkpoint-seconds", "0"),
        *("--max-concurrent", "1"),  # One worker, since starting one takes most of the time.
        *settings(place.text),
    )
    assert command.reaches(lambda: list(place.out.glob("runs/*/checkpoint/state.pt")))
    for pid in place.workers():
        os.kill(pid, signal.SIGSTOP)
    return command


def test_it_listens_on_the_loopback_alone_and_runs_no_agent_that_nobody_reads(driver):
    everyone = {driver.pid, *below(driver.pid)}
    ports = listening(everyone)
    # Driver, raylet (two), GCS, its agent for runtime environments, a worker.
    assert len({pid for pid, _ in ports}) >= 5
    assert not [(command_of(pid), where) for pid, where in ports if not on_loopback(where)]
    programs = " ".join(command_of(pid) for pid in everyone).split()
    assert not [p for p in programs if p.endswith(("dashboard.py", "monitor.py"))]
    assert not [p for p in programs if p.startswith("ray::Dashboard")]


def session(place):
    """The folder of a sweep's Ray."""
    (folder,) = Path(place.environment["RAY_TMPDIR"]).glob(f"{local_ray.PREFIX}*")
    return folder


def test_ray_s_files_are_its_user_s_alone(driver, place):
    folder = session(place)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    words = [word for pid in below(driver.pid) for word in command_of(pid).split()]
    sockets = {word for word in words if "/sockets/" in word}
    assert sockets
    assert all(f"={folder}/" in word for word in sockets)


def test_a_killed_driver_takes_all_with_it_and_resume_gives_what_undisturbed_training_gives(
    driver, place, monkeypatch
):
    everyone, folder = {driver.pid, *below(driver.pid)}, session(place)
    workers = place.workers()
    assert workers
    driver.send(signal.SIGKILL)
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):  # Ray may have been faster.
            os.kill(pid, signal.SIGCONT)
    driver.end()
    wait_for_end(everyone)
    assert folder.exists()
    monkeypatch.setenv("RAY_TMPDIR", place.environment["RAY_TMPDIR"])
    with local_ray.private_folder():
        assert not folder.exists()
    begun = [path for path in place.out.glob("runs/*") if not (path / "outcome.json").exists()]
    newest = [path / "checkpoint" / "state.pt" for path in begun]
    newest = [path for path in newest if path.exists()]
    assert newest
    for path in newest:
        flip(path, place.random)
    place.sync(here("resume", place.out, cwd=place.folder))
    assert wrong(place) == []
    assert {path.name for path in place.out.glob("*.parquet")} == set(TABLES)
    assert load(place.out).telemetry.groupby("run_id").size().tolist() == [STEPS + 1] * len(RATES)
