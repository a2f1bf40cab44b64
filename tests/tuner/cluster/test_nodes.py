"""Of a running cluster: code and storage reach every node, and gone nodes end a sweep."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
import ray
from clusters import ROOT, Nodes, connect, seen_by_worker
from ray import tune

from foretune.tuner.cluster import connect as connecting
from foretune.tuner.cluster import head

pytestmark = [pytest.mark.usefixtures("own_home"), pytest.mark.slow]


@pytest.fixture(scope="module")
def two_nodes():
    """Address, and removal, of a cluster with a head of no CPU and workers of one and two CPUs."""
    before = head.set_environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "k" * 32})
    noticed_at_once = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    running = None
    try:
        running = Nodes(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "_system_config": noticed_at_once},
        )
        workers = [running.add_node(num_cpus=n) for n in (1, 2)]
        yield running, workers
    finally:
        if running is not None:
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
        assert connecting.slots(connection, 1, 0) == 3
        assert connecting.slots(connection, 2, 0) == 1
        seen = seen_by_worker()
        assert not seen["code"].startswith(str(ROOT))
        assert ".venv" not in seen["packages"]
        connecting.probe_storage(tmp_path / "sweep")
        # A path that means another folder, or none, in every process: storage that isn't shared.
        descriptor = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(ValueError, match=r"every node shares.*node [\d.]+ doesn't see"):
                connecting.probe_storage(Path(f"/proc/self/fd/{descriptor}/sweep"))
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


def test_a_wrong_token_is_one_sentence_before_ray_retries(two_nodes, monkeypatch):
    running, _ = two_nodes
    monkeypatch.setenv("RAY_AUTH_TOKEN", "w" * 32)
    monkeypatch.setattr(ray, "init", None)  # It would retry for 20 s.
    with pytest.raises(ValueError, match="knows our token"):
        connect(running.address)


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
    watchdog, first = connecting.Watchdog(connection, 1, 0, stall_s=3), threading.Event()

    def lose_nodes():
        first.wait()
        for worker in workers:
            running.remove_node(worker, allow_graceful=False)

    loser = threading.Thread(target=lose_nodes)
    loser.start()
    try:
        # Tune takes the first SIGINT; a second one is for a clean-up that hangs.
        with watchdog, contextlib.suppress(KeyboardInterrupt):
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
        assert watchdog.reason is not None
        assert "must have a node for its trials, got none alive" in watchdog.reason
    finally:
        first.set()  # Also where the sweep failed before its first result.
        loser.join()
        connection.close()


def test_a_watchdog_lets_a_slow_trial_be_while_a_node_can_host_it(two_nodes):
    running, _ = two_nodes
    running.add_node(num_cpus=1)
    connection = connect(running.address)
    try:
        with connecting.Watchdog(connection, 1, 0, stall_s=0.2) as watchdog:
            time.sleep(1)
        assert watchdog.reason is None
    finally:
        connection.close()
