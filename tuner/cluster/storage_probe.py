"""Whether every node of a cluster sees the same directory."""

import time
import uuid
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.cluster.nodes import alive_nodes
from foretune.tuner.records.files import local_path

PROBE_S = 120.0
"""Seconds for every node to run its first task, code download included."""


def probe_storage(path: Path | str) -> None:
    """Writes and reads a small file under a directory from every node.

    Raises ValueError, in a sentence that names the node, where a node doesn't share it.
    """
    folder = local_path("out", path).absolute() / f".probe-{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
        (folder / "driver").write_text(folder.name)
    except OSError as error:
        raise _not_shared(path, "this machine", f"can't write there ({error.strerror})") from None
    try:
        _probe_from_nodes(Path(path), folder)
    finally:
        for file in folder.iterdir():
            file.unlink(missing_ok=True)
        folder.rmdir()


def _probe_from_nodes(path: Path, folder: Path) -> None:
    task = ray.remote(num_cpus=0, max_retries=0)(_touch)
    answers = {}
    for node in alive_nodes():
        here = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        answers[node] = task.options(scheduling_strategy=here).remote(str(folder), node.id)
    deadline = time.monotonic() + PROBE_S
    for node, answer in answers.items():
        try:
            problem = str(ray.get(answer, timeout=max(0.0, deadline - time.monotonic())))
        except RayError as error:
            problem = f"can't run a task ({str(error).strip().splitlines()[-1]})"
        if not problem and not _appears(folder / node.id):
            problem = "wrote a file that this machine doesn't see"
        if problem:
            raise _not_shared(path, f"node {node.ip}", problem)


def _touch(folder: str, node_id: str) -> str:
    """Runs on a node: returns what is wrong with the directory there, or nothing."""
    directory = Path(folder)
    if not _appears(directory / "driver"):
        return "doesn't see the file that the driver wrote"
    try:
        (directory / node_id).write_text(directory.name)
    except OSError as error:
        return f"can't write there ({error.strerror})"
    return ""


def _appears(file: Path, *, within_s: float = 2.0) -> bool:
    # Shared file systems may show a new file late.
    deadline = time.monotonic() + within_s
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _not_shared(path: Path | str, who: str, problem: str) -> ValueError:
    return ArgumentError(
        Argument("out"),
        f" must be a directory that every node shares, got {path}, where {who} {problem}; name one "
        f"on a shared file system (NFS, Lustre, EFS) that is mounted at the same path.",
    )
