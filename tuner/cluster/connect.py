"""Where trials run: a Ray cluster of this machine's own, or one that runs already."""

import glob
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.cluster.head import (
    authentication,
    check_head,
    find_head,
    longer_start,
    restore_environment,
    set_environment,
)
from foretune.tuner.cluster.local_ray import closed_start, private_folder, without_messages
from foretune.tuner.cluster.nodes import Node, alive_nodes, check_fits, raylet_place
from foretune.tuner.cluster.storage_probe import probe_storage
from foretune.tuner.cluster.watchdog import Watchdog
from foretune.tuner.config.user_files import own_folders

__all__ = ["Connection", "Node", "Watchdog", "connect", "probe_storage", "shipped", "slots"]

PACKAGE = "foretune"
"""The folder that workers get; its links to the folders beside it are followed."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
EXCLUDES = ("__pycache__", "*.egg-info", ".venv", "venv", ".git", ".ray", "mlruns", "mlflow.db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A cluster that this process is connected to, until `close()`."""

    address: str
    """HOST:PORT of the head."""
    nodes: tuple[Node, ...]
    """The nodes alive when the connection was made."""
    local: bool
    """Whether the cluster was started by this process and ends with it."""
    places: tuple[str, ...] = ()
    """HOST:PORT of the head and of this machine's raylet, without which a driver can't be."""
    _ends: ExitStack = field(repr=False)

    @property
    def patience_s(self) -> float:
        """Seconds without an answer after which they count as gone.

        Ray ends a driver after 15 s without its raylet and after 60 s without the head, which on a
        cluster may come back.
        """
        return 2.0 if self.local else 45.0

    def close(self) -> None:
        """Leaves the cluster, ends it if local, and puts the environment back; twice is once."""
        self._ends.close()


def connect(
    address: str = "",
    *,
    cpus_per_trial: float,
    gpus_per_trial: float,
    code_root: Path,
    quiet: bool = True,
) -> Connection:
    """Returns a connection to a cluster on which a trial fits and whose workers hold the code.

    Args:
        address: empty starts a cluster on this machine; auto or HOST:PORT joins a running one.
        cpus_per_trial: CPUs of a trial; its whole part is the number of threads it may use.
        gpus_per_trial: GPUs of a trial.
        code_root: the checkout; workers import their own copy of it, as it is now.
        quiet: whether Ray's and the workers' own output is dropped.

    Raises ValueError, in a sentence, where the cluster can't be joined or no trial can ever fit.
    """
    if ray.is_initialized():
        raise ValueError(
            "A sweep must connect to Ray by itself, got a process that is connected already; "
            "call ray.shutdown() first."
        )
    local = not address
    in_job = bool(_job_runtime_env())
    if local and in_job:
        raise ArgumentError(
            Argument("address"),
            " must be auto inside a Ray job, got none; add ",
            Argument("address"),
            " auto.",
        )
    if local:
        check_fits((_this_machine(gpus_per_trial),), cpus_per_trial, gpus_per_trial)
    host_port = "" if local else find_head(address)
    variables = {
        **authentication(local=local),
        # Tune hands the driver's value on to its trials.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Tune's new console prints its tables at verbose=0 too.
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **({"TUNE_PRINT_ALL_TRIAL_ERRORS": "0"} if quiet else {}),
    }
    ends = ExitStack()
    try:
        ends.callback(restore_environment, set_environment(variables))
        folder = ends.enter_context(private_folder()) if local else None
        if quiet:
            ends.enter_context(without_messages())
        ends.callback(ray.shutdown)
        runtime_env = _runtime_env(code_root, cpus_per_trial, local=local)
        if folder:
            _start(folder, runtime_env, quiet=quiet)
        else:
            check_head(host_port)
            _join(host_port, runtime_env, quiet=quiet)
        nodes = alive_nodes()
        check_fits(nodes, cpus_per_trial, gpus_per_trial)
        address = ray.get_runtime_context().gcs_address
        places = (address, raylet_place())
    except BaseException:
        ends.close()
        raise
    return Connection(address=address, nodes=nodes, local=local, places=places, _ends=ends)


def slots(connection: Connection, cpus_per_trial: float, gpus_per_trial: float) -> int:
    """Returns how many trials fit at once, over all nodes."""
    return sum(node.slots(cpus_per_trial, gpus_per_trial) for node in connection.nodes)


def _this_machine(gpus_per_trial: float) -> Node:
    gpus = 0
    if gpus_per_trial:
        import torch

        gpus = torch.cuda.device_count()
    return Node(id="", ip="127.0.0.1", cpus=os.cpu_count() or 1, gpus=gpus)


def _start(folder: Path, runtime_env: dict[str, Any], *, quiet: bool) -> None:
    """Starts a cluster of this machine's own, with its files in a folder."""
    try:
        with closed_start(folder, quiet=quiet) as options, longer_start():
            ray.init(**options, **_options(runtime_env, quiet=quiet))
    except Exception as error:  # Ray raises its own, OSError, and bare ones where a start fails.
        raise ArgumentError(
            f"Ray must start on this machine, got an error ({_reason(error)}); see docs/cluster.md."
        ) from error


def _join(host_port: str, runtime_env: dict[str, Any], *, quiet: bool) -> None:
    try:
        ray.init(address=host_port, **_options(runtime_env, quiet=quiet))
    except Exception as error:  # As above.
        raise ArgumentError(
            Argument("address"),
            f" must be a cluster that can be joined, got {host_port} ({_reason(error)}); see "
            f"docs/cluster.md.",
        ) from error


def _options(runtime_env: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    return {
        "runtime_env": runtime_env,
        "log_to_driver": not quiet,
        "logging_level": "ERROR" if quiet else "INFO",
    }


def _reason(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())[:300].rstrip(".")


def _job_runtime_env() -> dict[str, Any]:
    """The runtime_env of the Ray job that this process is the driver of, or nothing."""
    return json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}


def _runtime_env(code_root: Path, cpus_per_trial: float, *, local: bool) -> dict[str, Any]:
    """What workers get: threads, a copy of the code, and the driver's folder after it.

    The folder serves a user's modules and relative paths, on nodes that have it, as do those of the
    user's files that this process has loaded. working_dir and
    not py_modules: with the latter Ray puts the driver's folder before the code, so that a stale
    checkout or a user's own `models` hides ours (ran).
    """
    job = _job_runtime_env()
    threads = str(max(1, int(cpus_per_trial)))
    folders = os.pathsep.join((os.getcwd(), *own_folders()))
    variables = {**dict.fromkeys(THREADS, threads), "PYTHONPATH": folders}
    theirs = job.get("env_vars", {})
    env: dict[str, Any] = {"env_vars": {k: v for k, v in variables.items() if k not in theirs}}
    if "working_dir" not in job:
        env |= shipped(code_root, whole=not local)
    if "worker_process_setup_hook" not in job:
        env["worker_process_setup_hook"] = _enter(os.getcwd())
    return env


def _enter(folder: str) -> Callable[[], None]:
    """A function for every new worker, which Ray starts in the copy of the code."""

    def enter() -> None:
        if os.path.isdir(folder):
            os.chdir(folder)

    return enter


def shipped(code_root: Path, *, whole: bool) -> dict[str, Any]:
    """Returns the runtime_env that uploads a checkout: all of it, or our package alone.

    .gitignore, .rayignore and sweeps (folders with a sweep.json) are left out.
    """
    root = code_root.resolve()
    if not (root / PACKAGE / "__init__.py").is_file():
        raise ValueError(
            f"The code to ship must be a Foretune checkout, got {root} without {PACKAGE}/; "
            f"start from the checkout."
        )
    if not whole:
        rest = sorted(path.name for path in root.iterdir() if path.name != PACKAGE)
        only = [*EXCLUDES, *(f"/{glob.escape(name)}" for name in rest)]
        return {"working_dir": str(root), "excludes": only}
    found = [path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/sweep.json")]
    sweeps = [f"/{path.parent.relative_to(root).as_posix()}/" for path in found]
    return {"working_dir": str(root), "excludes": [*EXCLUDES, *sorted(sweeps)]}
