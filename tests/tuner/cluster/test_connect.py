"""Clusters are started or refused in a sentence, and the code reaches their workers."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from clusters import ROOT, connect, seen_by_worker

from foretune.tuner.cluster import connect as connecting
from foretune.tuner.cluster import head

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def never_asks_ray(monkeypatch):
    """Ray's own connecting, which retries for 20 to 80 s, isn't even begun."""
    monkeypatch.setattr(ray, "init", None)


@pytest.mark.usefixtures("never_asks_ray")
def test_a_port_where_nobody_listens_is_one_sentence_before_ray_retries(free_port):
    address = f"127.0.0.1:{free_port}"
    with pytest.raises(ValueError, match=f"running Ray head, got {address}, where none answers"):
        connect(address)


@pytest.mark.usefixtures("never_asks_ray")
def test_a_port_that_never_answers_is_one_sentence_before_ray_retries():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ValueError, match="none answers within 3 s"):
            connect(f"127.0.0.1:{silent.getsockname()[1]}")


def own_proc(monkeypatch, folder: Path, *processes: int) -> None:
    """Ray searches /proc and its temporary folder: here, a /proc of these processes alone."""
    from ray._private import services

    (folder / "proc").mkdir()
    for name in ("stat", *map(str, processes)):
        (folder / "proc" / name).symlink_to(f"/proc/{name}")
    monkeypatch.setattr(services.psutil, "PROCFS_PATH", str(folder / "proc"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))


@pytest.fixture
def raylets(tmp_path) -> Iterator[list[int]]:
    """Two processes that look to Ray like nodes of two clusters."""
    script = tmp_path / "raylet"
    script.symlink_to(sys.executable)
    wait = "import threading; threading.Event().wait()"
    started = [
        subprocess.Popen([script, "-c", wait, f"--gcs-address=127.0.0.1:{port}"])
        for port in (7001, 7002)
    ]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_auto_without_a_cluster_is_one_sentence(monkeypatch, tmp_path):
    own_proc(monkeypatch, tmp_path, os.getpid())
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:7009")  # Long gone.
    with pytest.raises(ValueError, match="must find one running cluster on this machine, got none"):
        connect("auto")


def test_auto_among_several_clusters_names_them_instead_of_choosing(monkeypatch, tmp_path, raylets):
    own_proc(monkeypatch, tmp_path, *raylets)
    with pytest.raises(ValueError, match=r"got 127.0.0.1:7001, 127.0.0.1:7002; name one"):
        connect("auto")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://head:10001", "head", "local"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ValueError, match="must be auto or HOST:PORT"):
        connect(address)


def test_rubbish_in_ray_address_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ValueError, match="8265 from RAY_ADDRESS"):
        connect("auto")


@pytest.mark.parametrize(("cpus", "gpus"), [(4096, 0), (1, 4096)])
def test_a_trial_larger_than_this_machine_is_refused_before_ray_starts(cpus, gpus):
    with pytest.raises(ValueError, match=r"must fit on one node, got .* lower cpus_per_trial"):
        connect(cpus=cpus, gpus=gpus)
    assert not ray.is_initialized()


def test_a_trial_that_asks_for_nothing_is_refused():
    with pytest.raises(ValueError, match="must ask for CPUs or GPUs"):
        connect(cpus=0)


def test_what_the_user_set_for_authentication_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert head.authentication(local=True) == {}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ValueError, match="RAY_AUTH_MODE=token must come with a token"):
        head.authentication(local=False)
    token = tmp_path / "token"
    token.write_text("t" * 32)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert head.authentication(local=True)["RAY_AUTH_TOKEN_PATH"] == str(token)


def test_object_stores_are_refused():
    with pytest.raises(ValueError, match="object stores can't append"):
        connecting.probe_storage(Path("s3://bucket/sweep"))


def test_shipping_leaves_out_sweeps_and_for_a_local_cluster_all_but_the_package(tmp_path):
    (tmp_path / connecting.PACKAGE).mkdir()
    (tmp_path / connecting.PACKAGE / "__init__.py").touch()
    (tmp_path / "out" / "first").mkdir(parents=True)
    (tmp_path / "out" / "first" / "sweep.json").touch()
    (tmp_path / "data").mkdir()
    assert "/out/first/" in connecting.shipped(tmp_path, whole=True)["excludes"]
    assert "/data" not in connecting.shipped(tmp_path, whole=True)["excludes"]
    assert {"/data", "/out"} <= set(connecting.shipped(tmp_path, whole=False)["excludes"])
    with pytest.raises(ValueError, match="must be a Foretune checkout"):
        connecting.shipped(tmp_path / "data", whole=True)


def slow_raylet(monkeypatch, folder: Path, seconds: float) -> None:
    """Ray's process of a node begins late, as where cores are busy."""
    from ray._private import services

    script = folder / "raylet"
    script.write_text(f'#!/bin/sh\nsleep {seconds}\nexec {services.RAYLET_EXECUTABLE} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(services, "RAYLET_EXECUTABLE", str(script))


@pytest.mark.slow
def test_a_node_may_take_longer_to_start_than_ray_waits_for(monkeypatch, tmp_path):
    slow_raylet(monkeypatch, tmp_path, 40)  # Ray alone gives up after 30.
    connect().close()


def test_a_cluster_that_does_not_start_is_one_sentence(monkeypatch):
    def fail(**options):
        raise Exception("The current node timed out during startup.")  # Ray's, word for word.

    monkeypatch.setattr(ray, "init", fail)
    sentence = r"Ray must start on this machine, got an error \(The current node timed out"
    with pytest.raises(ValueError, match=sentence):
        connect()


@pytest.mark.slow
def test_a_local_cluster_starts_whatever_ray_address_says(monkeypatch, tmp_path):
    # A user's project folder, with a package named like one of ours.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise ImportError('not ours')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "rubbish:1")
    before = dict(os.environ)
    connection = connect(cpus=1)
    try:
        assert connection.local
        assert connecting.slots(connection, 0.5, 0) == 2 * (os.cpu_count() or 1)
        seen = seen_by_worker()
        assert seen["packages"] == [connecting.PACKAGE]
        assert not seen["code"].startswith(str(ROOT))
        assert seen["folder"] == str(tmp_path)
        assert {seen[name] for name in connecting.THREADS} == {"1"}
        assert seen["RAY_AUTH_MODE"] == "token"
        connecting.probe_storage(tmp_path / "sweep")
        assert not list((tmp_path / "sweep").iterdir())
        with pytest.raises(ValueError, match=r"call ray.shutdown\(\) first"):
            connect()
    finally:
        connection.close()
        connection.close()
    assert not ray.is_initialized()
    left = {k: v for k, v in os.environ.items() if k.startswith(("RAY_AUTH", "TUNE_", "RAY_CH"))}
    assert left == {k: v for k, v in before.items() if k in left}
    assert not (Path.home() / ".ray").exists()
