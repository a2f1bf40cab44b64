"""A Ray of this machine alone: nothing listens beyond the loopback, nobody else reads its files.

Ray 2.60 has settings for neither, so what it keeps private is used here, each with its reason.
"""

import functools
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foretune.tuner.cluster import fate_shared, idle_agent

PREFIX = "foretune-ray-"
LONGEST = 43
"""Letters of a folder that leave room for Ray's names of sockets, of which Linux takes 107."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Gives a new folder for Ray's sockets, logs and copy of the code, for this user alone.

    Ray's own, in /tmp/ray, may be written by everybody: who did could change the code that workers
    run. Folders that killed sweeps left are removed. Raises ValueError where RAY_TMPDIR is too long
    for it.
    """
    base = _base()
    for left in base.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            _remove(left)
    folder = _new_folder(base)
    try:
        yield folder
    finally:
        _remove(folder)


def _base() -> Path:
    """The folder that a user asks for, or a temporary one."""
    most = LONGEST - len(f"/{PREFIX}{os.getpid()}-9")
    asked = os.environ.get("RAY_TMPDIR")
    if asked and len(os.path.abspath(asked)) > most:
        raise ValueError(
            f"RAY_TMPDIR must have at most {most} letters, since sockets' names end at 107, got "
            f"{asked}; name a shorter folder, a link to it will do."
        )
    base = os.path.abspath(asked or tempfile.gettempdir())
    return Path(base if len(base) <= most else "/tmp")


def _new_folder(base: Path) -> Path:
    """A new one that is called by this process; what somebody else put there is left alone."""
    name = f"{PREFIX}{os.getpid()}"
    numbers = itertools.count(1)
    while True:
        with suppress(FileExistsError):
            (base / name).mkdir(mode=0o700)
            return base / name
        name = f"{PREFIX}{os.getpid()}-{next(numbers)}"


def has_ended() -> bool:
    """Whether a process of the Ray that this one has started has ended, its raylet or its GCS."""
    from ray._private import worker

    node = worker._global_node
    return node is not None and bool(node.dead_processes())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # Somebody else's, or no number of a process.
        return True
    return True


def _remove(folder: Path) -> None:
    """Removes such a folder, if it is this user's; a worker that still ends may write into it."""
    for _ in range(3):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                return
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def without_messages() -> Iterator[None]:
    """Drops what Ray prints about workers that died: the driver says it in a sentence."""
    from ray._private import worker

    with _replaced(worker, "print_to_stdstream", lambda *_, **__: None):
        yield


@contextmanager
def closed_start(folder: Path, *, quiet: bool) -> Iterator[dict[str, Any]]:
    """Gives options for ray.init, which within the block starts a cluster that is closed.

    folder is a private one, for its files.

    Every process of it listens on the loopback: servers of Ray's do so where the address of their
    node is 127.0.0.1. The dashboard, its agent, the autoscaler's monitor and, where quiet, the log
    monitor don't start: nobody reads them here, and three of them answered /metrics to everybody.
    """
    from ray._private import parameter, ray_constants, services

    log_monitor: Any = False if quiet else None
    lean = functools.partial(parameter.RayParams, no_monitor=True, include_log_monitor=log_monitor)
    with (
        # Else `_node_ip_address` becomes that of the network, "so that others reach it".
        _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _replaced(parameter, "RayParams", lean),
        _replaced(services, "start_api_server", _no_dashboard),
        _replaced(
            services,
            "_build_python_executable_command_memory_profileable",
            _agents(services._build_python_executable_command_memory_profileable),
        ),
    ):
        yield {
            "address": "local",  # Else RAY_ADDRESS or another local cluster would be joined.
            "num_cpus": os.cpu_count(),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(folder / "r"),  # Ray opens it to everybody; the folder stays closed.
            "_system_config": {"enable_metrics_collection": False},
        }


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _no_dashboard(*_: Any, **__: Any) -> tuple[str, None]:
    return "", None


def _agents(command_of: Any) -> Any:
    """Python as Ray would start its processes by it, but for the two agents of a raylet."""

    def command(component: str, *rest: Any, **how: Any) -> list[str]:
        if component == "dashboard_agent":
            return [sys.executable, "-S", idle_agent.__file__]
        python = command_of(component, *rest, **how)
        if component == "runtime_env_agent":
            return [sys.executable, "-S", fate_shared.__file__, *python]
        return python

    return command
