"""Whole files to each worker, as xdist's loadfile, and an end whatever a worker or a test does.

xdist's own loadfile waits for good once a worker has died: it gives a dead worker's files back with
those that had ended, and hands the new worker one at a time. A file in which nothing is left to run
never reports a test, so that nobody is given the next file or asked to end.
"""

import os
import re
import signal
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

import pytest
from process_tree import kill_below
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# A shell starts background jobs with SIGINT ignored, and processes of ours inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
pytest.register_assert_rewrite(
    "commands", "mlflow_servers", "mlflow_sweeps", "processes", "short_runs"
)
# How long Ray waits for its own processes, 30 and 60 s, isn't what is tested: cores may be busy.
for name in ("gcs_server_port_wait_time_s", "worker_register_timeout_seconds"):
    os.environ[f"RAY_{name}"] = "600"
os.environ["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = "600"
# A test that asks Ray something where none runs would start one that nobody ends.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
# A developer's own store, experiment, password or user-level files are no part of a test.
for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[name]
_state = tempfile.TemporaryDirectory(prefix="foretune-tests-")
os.environ["XDG_STATE_HOME"] = _state.name
if "PYTEST_XDIST_WORKER" not in os.environ:  # One for all workers: they share what takes long.
    os.environ["FORETUNE_CACHE"] = f"{_state.name}/cache"
# One thread a worker, before anything loads torch or numpy: idle threads spin, at others' cost.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

HARD = 1.1
"""Where the suite is ended in any case, as a multiple of `session_timeout`, which ends it between
two tests."""


class WholeFiles(LoadFileScheduling):
    """Loadfile that outlives its workers: what a dead one had left goes to the others."""

    def remove_node(self, node: WorkerController) -> str | None:
        """As xdist's; the test that a worker died in counts as run, and is returned."""
        workload = self.assigned_work[node]
        left = [(file, test) for file, tests in workload.items() for test in tests]
        left = [(file, test) for file, test in left if not workload[file][test]]
        crashed = left[0] if left else None
        if crashed:
            workload[crashed[0]][crashed[1]] = True
        self.assigned_work.pop(node)
        for file, tests in reversed(workload.items()):
            if not all(tests.values()):
                self.workqueue[file] = tests
                self.workqueue.move_to_end(file, last=False)
        # The worker that takes its place may find nothing left, and then ends at once.
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed[1] if crashed else None

    def _reschedule(self, node: WorkerController) -> None:
        """Tops a worker up; with its last test it waits until it knows the next, or the end."""
        while self.workqueue and not node.shutting_down and node in self.registered_collections:
            if self._pending_of(self.assigned_work[node]) > 2:
                return
            self._assign_work_unit(node)
        if not self.workqueue:
            super()._reschedule(node)


class Deadline:
    """Ends the whole suite where it hangs outside of a test, and names the tests that ran."""

    def __init__(self, seconds: float):
        self._running: dict[str, None] = {}
        self._timer = threading.Timer(seconds, self._end, [seconds])
        self._timer.daemon = True
        self._timer.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    def pytest_unconfigure(self) -> None:
        self._timer.cancel()

    def _end(self, seconds: float) -> None:
        names = ", ".join(self._running) or "no test"
        note = f"\nThe suite hung: {seconds:g} s are over, and this ran: {names}\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, note.encode())
        kill_below(os.getpid())
        os._exit(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run sweeps go first: one that comes last keeps one worker busy and no other."""
    items.sort(key=lambda item: not _runs_sweeps(item.path))


@cache
def _runs_sweeps(path: Path) -> bool:
    names = r"ray|processes|clusters|mlflow|foretune\.tuner\.(?:sweeps|reproduce|cluster)"
    return re.search(rf"^(?:from|import) (?:{names})\b", path.read_text(), re.MULTILINE) is not None


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    return WholeFiles(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_unconfigure() -> None:
    _state.cleanup()  # By hand: a worker ends without its own.


def pytest_configure(config: pytest.Config) -> None:
    limit = config.getoption("session_timeout") or float(config.getini("session_timeout") or 0)
    if limit and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Deadline(HARD * limit))
