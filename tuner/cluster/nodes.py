"""The machines of a cluster, and whether a trial fits on one."""

from dataclasses import dataclass

import ray

from foretune.argument_error import Argument, ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of a cluster and what it has in all, used or not."""

    id: str
    ip: str
    cpus: float
    gpus: float

    def slots(self, cpus_per_trial: float, gpus_per_trial: float) -> int:
        """Returns how many trials fit on the node at once."""
        pairs = ((self.cpus, cpus_per_trial), (self.gpus, gpus_per_trial))
        return min(int(has / asks + 1e-9) for has, asks in pairs if asks > 0)


def alive_nodes() -> tuple[Node, ...]:
    """Returns the nodes of the connected cluster that are alive now."""
    return tuple(
        Node(
            id=node["NodeID"],
            ip=node["NodeManagerAddress"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def raylet_place() -> str:
    """Returns HOST:PORT of the raylet that this process is connected to."""
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    return f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"


def check_fits(nodes: tuple[Node, ...], cpus_per_trial: float, gpus_per_trial: float) -> None:
    """ValueError where no node could ever host a trial, which Ray would wait for forever."""
    if cpus_per_trial < 0 or gpus_per_trial < 0 or cpus_per_trial + gpus_per_trial == 0:
        raise ArgumentError(
            f"A trial must ask for CPUs or GPUs, got {cpus_per_trial:g} CPUs and "
            f"{gpus_per_trial:g} GPUs; set ",
            Argument("cpus_per_trial"),
            " 1.",
        )
    if any(node.slots(cpus_per_trial, gpus_per_trial) for node in nodes):
        return
    shapes = sorted({(node.cpus, node.gpus) for node in nodes}, reverse=True)
    have = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in shapes) or "none alive"
    raise ArgumentError(
        f"A trial must fit on one node, got {cpus_per_trial:g} CPUs and {gpus_per_trial:g} GPUs a "
        f"trial where nodes have {have}; lower ",
        Argument("cpus_per_trial"),
        " or ",
        Argument("gpus_per_trial"),
        ".",
    )
