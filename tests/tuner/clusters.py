"""Clusters as the tests connect to them, and as a worker sees them."""

import os
from pathlib import Path

import ray

from tuner import cluster

ROOT = Path(__file__).parents[2]


def connect(address="", *, cpus=1.0, gpus=0.0):
    return cluster.connect(address, cpus_per_trial=cpus, gpus_per_trial=gpus, code_root=ROOT)


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
