"""Clusters as the tests connect to them, and as a worker sees them."""

import itertools
import os
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from foretune.tuner.cluster import connect as connecting
from foretune.tuner.cluster import head

ROOT = Path(__file__).parents[2]


class Nodes(Cluster):
    """Several nodes on this machine, each of which may take its time to start.

    Without a dashboard: its port is one for the whole machine, and another cluster may have it.
    Each with its own copy of the code, as on machines of their own: a node removes what is there
    before it unpacks, also under the workers of another.
    """

    _numbers = itertools.count()

    def add_node(self, **how):
        with head.longer_start():
            own = {"include_dashboard": False}
            if self.head_node is not None:  # The driver packs the code into that of the head.
                own["runtime_env_dir_name"] = f"runtime_resources_{next(self._numbers)}"
            return super().add_node(**{**own, **how})

    def _wait_for_node(self, node, timeout=head.START_S):
        super()._wait_for_node(node, timeout)


def connect(address="", *, cpus=1.0, gpus=0.0):
    return connecting.connect(address, cpus_per_trial=cpus, gpus_per_trial=gpus, code_root=ROOT)


def seen_by_worker():
    """What a worker sees of code, folder and environment."""

    def look_around():  # nested, so that it travels by value: tests aren't shipped
        import foretune

        return {
            "code": foretune.__file__,
            "packages": sorted(os.listdir(Path(foretune.__file__).parents[1])),
            "folder": os.getcwd(),
            **{name: os.environ.get(name) for name in names},
        }

    names = (*connecting.THREADS, "RAY_AUTH_MODE")
    return ray.get(ray.remote(num_cpus=0)(look_around).remote())
