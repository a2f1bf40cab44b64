"""Workers, raylets and nodes that die while a sweep trains, and a clock that jumps."""

from collections.abc import Iterator
from contextlib import contextmanager

from clusters import Nodes
from place import Lost, Place
from sweeps import begin

from foretune.tuner.cluster import head

STALL_S = 5
SITECUSTOMIZE = """
import os, time

_time, _file = time.time, os.environ["FORETUNE_CLOCK"]


def _moved():
    try:
        with open(_file) as file:
            return _time() + float(file.read() or 0)
    except (OSError, ValueError):
        return _time()


time.time = _moved
time.time_ns = lambda: int(_moved() * 1e9)
"""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "k" * 32}


def worker(place: Place) -> None:
    """A worker of two is killed twice."""
    sweep = begin(place)
    for share in (place.random.uniform(0.05, 0.4), place.random.uniform(0.5, 0.8)):
        place.in_training(sweep, share)
        place.kill("worker")
    place.sync(place.finish(sweep))


def raylet(place: Place) -> None:
    """The raylet of a local sweep is killed, and with it all that it started."""
    sweep = begin(place)
    place.in_training(sweep, place.random.uniform(0.05, 0.4))
    place.kill("raylet/raylet")
    output = place.finish(sweep, (3,))
    if "foretune resume" not in output:
        raise Lost(f"it doesn't say how to go on: {output[-300:]}")
    place.check_left()
    place.resume()


@contextmanager
def three_nodes(place: Place) -> Iterator[tuple[Nodes, list]]:
    """A head without a CPU and two nodes of one, in processes of this one's."""
    before = head.set_environment(TOKEN)
    place.environment |= TOKEN
    cluster = None
    try:
        noticed_at_once = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}
        cluster = Nodes(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "_system_config": noticed_at_once},
        )
        yield cluster, [cluster.add_node(num_cpus=1) for _ in range(2)]
    finally:
        if cluster is not None:
            cluster.shutdown()
        head.restore_environment(before)


def node(place: Place) -> None:
    """One node of two is killed; its trial goes on upon the other."""
    with three_nodes(place) as (cluster, nodes):
        sweep = begin(place, "grid", "--address", cluster.address)
        place.in_training(sweep)
        cluster.remove_node(place.random.choice(nodes), allow_graceful=False)
        place.sync(place.finish(sweep))


def last_node(place: Place) -> None:
    """All nodes but the head are killed: the watchdog ends the sweep; one comes back."""
    with three_nodes(place) as (cluster, nodes):
        sweep = begin(place, "grid", "--address", cluster.address, "--stall-timeout", STALL_S)
        place.in_training(sweep, place.random.uniform(0.05, 0.4))
        for one in nodes:
            cluster.remove_node(one, allow_graceful=False)
        output = place.finish(sweep, (3,))
        if "must have a node for its trials" not in output:
            raise Lost(f"it doesn't say what is missing: {output[-300:]}")
        cluster.add_node(num_cpus=2)
        place.resume("--address", cluster.address)


def clock_jumps(place: Place) -> None:
    """Forward by an hour, and then to an hour before, in all processes of the sweep."""
    clock = place.folder / "clock.txt"
    (place.folder / "code").mkdir()
    (place.folder / "code" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = f"{place.folder / 'code'}:{place.environment['PYTHONPATH']}"
    place.environment |= {"PYTHONPATH": path, "FORETUNE_CLOCK": str(clock)}
    sweep = begin(place)
    place.in_training(sweep, place.random.uniform(0.05, 0.4))
    clock.write_text("3600")
    place.in_training(sweep, place.random.uniform(0.5, 0.8))
    clock.write_text("-3600")
    place.sync(place.finish(sweep))
