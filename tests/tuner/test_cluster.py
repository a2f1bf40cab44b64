"""Clusters are joined or refused in a sentence, code and storage reach every node, gone nodes end
a sweep."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from tuner import cluster, head

ROOT = Path(__file__).parents[2]


def connect(address="", *, cpus=1.0, gpus=0.0):
    return cluster.connect(address, cpus_per_trial=cpus, gpus_per_trial=gpus, code_root=ROOT)


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_port_where_nobody_listens_is_one_sentence_within_six_seconds():
    started = time.monotonic()
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ValueError, match=f"running Ray head, got {address}, where none answers"):
        connect(address)
    assert time.monotonic() - started < 6


def test_a_port_that_never_answers_is_one_sentence_within_six_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(ValueError, match="none answers within 3 s"):
            connect(f"127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 6


def test_auto_without_a_cluster_is_one_sentence():
    from ray._private import services

    services.find_gcs_addresses.cache_clear()
    if services.find_gcs_addresses():
        pytest.skip("another cluster runs on this machine")
    with pytest.raises(ValueError, match="auto must find one running cluster on this machine"):
        connect("auto")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://head:10001", "head", "local"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ValueError, match="must be auto or HOST:PORT"):
        connect(address)


def test_rubbish_in_ray_address_is_named():
    os.environ["RAY_ADDRESS"] = "http://127.0.0.1:8265"
    with pytest.raises(ValueError, match="8265 from RAY_ADDRESS"):
        connect("auto")


@pytest.mark.parametrize(("cpus", "gpus"), [(4096, 0), (1, 4096)])
def test_a_trial_larger_than_this_machine_is_refused_before_ray_starts(cpus, gpus):
    with pytest.raises(ValueError, match=r"must fit on one node, got .* lower --cpus-per-trial"):
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
        cluster.probe_storage(Path("s3://bucket/sweep"))


def test_shipping_leaves_out_sweeps_and_for_a_local_cluster_all_but_the_packages(tmp_path):
    for package in cluster.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "out" / "first").mkdir(parents=True)
    (tmp_path / "out" / "first" / "sweep.json").touch()
    (tmp_path / "data").mkdir()
    assert "/out/first/" in cluster.shipped(tmp_path, whole=True)["excludes"]
    assert "/data" not in cluster.shipped(tmp_path, whole=True)["excludes"]
    assert {"/data", "/out"} <= set(cluster.shipped(tmp_path, whole=False)["excludes"])
    with pytest.raises(ValueError, match="must be a Foretune checkout"):
        cluster.shipped(tmp_path / "data", whole=True)


def seen_by_worker():
    """What a worker sees of code, folder and environment."""

    def look_around():  # nested, so that it travels by value: tests aren't shipped
        import tuner

        return {
            "code": tuner.__file__,
            "packages": sorted(os.listdir(Path(tuner.__file__).parents[1])),
            "folder": os.getcwd(),
            **{name: os.environ.get(name) for name in names},
        }

    names = (*cluster.THREADS, "RAY_AUTH_MODE")
    return ray.get(ray.remote(num_cpus=0)(look_around).remote())


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
        assert cluster.slots(connection, 0.5, 0) == 2 * (os.cpu_count() or 1)
        seen = seen_by_worker()
        assert seen["packages"] == sorted(cluster.PACKAGES)
        assert not seen["code"].startswith(str(ROOT))
        assert seen["folder"] == str(tmp_path)
        assert {seen[name] for name in cluster.THREADS} == {"1"}
        assert seen["RAY_AUTH_MODE"] == "token"
        cluster.probe_storage(tmp_path / "sweep")
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


@pytest.fixture(scope="module")
def two_nodes():
    """Address, and removal, of a cluster with a head of no CPU and workers of one and two CPUs."""
    before = head.set_environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "k" * 32})
    noticed_at_once = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    running = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "_system_config": noticed_at_once},
    )
    workers = [running.add_node(num_cpus=n) for n in (1, 2)]
    yield running, workers
    running.shutdown()
    head.restore_environment(before)


def test_a_running_cluster_is_joined_with_the_code_and_the_storage_of_every_node(
    two_nodes, tmp_path
):
    running, _ = two_nodes
    connection = connect(running.address)
    try:
        assert not connection.local
        assert sorted(node.cpus for node in connection.nodes) == [0, 1, 2]
        assert cluster.slots(connection, 1, 0) == 3
        assert cluster.slots(connection, 2, 0) == 1
        seen = seen_by_worker()
        assert not seen["code"].startswith(str(ROOT))
        assert ".venv" not in seen["packages"]
        cluster.probe_storage(tmp_path / "sweep")
        # A path that means another folder, or none, in every process: storage that isn't shared.
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(ValueError, match=r"every node shares.*node [\d.]+ doesn't see"):
                cluster.probe_storage(Path(f"/proc/self/fd/{descriptor}/sweep"))
        finally:
            os.close(descriptor)
        assert not list((tmp_path / "sweep").iterdir())
    finally:
        connection.close()


def test_a_trial_larger_than_any_node_is_refused(two_nodes):
    running, _ = two_nodes
    with pytest.raises(ValueError, match=r"got 3 CPUs .* where nodes have 2 CPUs"):
        connect(running.address, cpus=3)
    assert not ray.is_initialized()


def test_a_wrong_token_is_one_sentence_within_six_seconds(two_nodes, monkeypatch):
    running, _ = two_nodes
    monkeypatch.setenv("RAY_AUTH_TOKEN", "w" * 32)
    started = time.monotonic()
    with pytest.raises(ValueError, match="knows our token"):
        connect(running.address)
    assert time.monotonic() - started < 6


class Progress(tune.Callback):
    def __init__(self, watchdog, first):
        self.watchdog, self.first = watchdog, first

    def __getstate__(self):
        return {"watchdog": self.watchdog}

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.watchdog.tick()
        self.first.set()


def test_a_sweep_ends_when_no_node_can_host_a_trial(two_nodes, tmp_path):
    running, workers = two_nodes

    class Endless(tune.Trainable):
        def step(self):
            time.sleep(0.2)
            return {"objective": 1.0}

        def save_checkpoint(self, checkpoint_dir):
            return None

    connection = connect(running.address)
    watchdog, first = cluster.Watchdog(connection, 1, 0, stall_s=3), threading.Event()

    def lose_nodes():
        first.wait(60)
        for worker in workers:
            running.remove_node(worker, allow_graceful=False)

    loser = threading.Thread(target=lose_nodes)
    loser.start()
    try:
        with watchdog:
            started = time.monotonic()
            # Tune takes the first SIGINT; a second one is for a clean-up that hangs.
            with contextlib.suppress(KeyboardInterrupt):
                tune.Tuner(
                    tune.with_resources(Endless, {"cpu": 1}),
                    run_config=tune.RunConfig(
                        storage_path=str(tmp_path),
                        callbacks=[Progress(watchdog, first)],
                        verbose=0,
                        failure_config=tune.FailureConfig(max_failures=-1),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    ),
                ).fit()
            assert time.monotonic() - started < 60
        assert watchdog.reason is not None
        assert "must have a node for its trials, got none alive" in watchdog.reason
    finally:
        loser.join()
        connection.close()


def test_a_watchdog_lets_a_slow_trial_be_while_a_node_can_host_it(two_nodes):
    running, _ = two_nodes
    running.add_node(num_cpus=1)
    connection = connect(running.address)
    try:
        with cluster.Watchdog(connection, 1, 0, stall_s=0.2) as watchdog:
            time.sleep(1)
        assert watchdog.reason is None
    finally:
        connection.close()
