"""Claim: a sweep takes at most 1.05 times as long with MLflow as without, whether its server is
well, answers each request 5 s late, or is dead.

The same sweep runs with each in turn, in rounds; a ratio is the median over rounds of the ratio to
the sweep without MLflow in the same round, so that drift of the machine cancels. A sweep's time
runs from its first trial's opening to its last outcome, as in `benchmarks.speed.overhead`. How long
the end then waits for MLflow, which is bounded and doesn't grow with the sweep, is printed beside.

The server is MLflow's own, on this machine at the lowest priority: a team's is elsewhere. Slow is a
door before it that holds every request back.

    python -m benchmarks.speed.tracking [--rounds 3] [--sizes 16 32] [--steps 200] [--save]
"""

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from ray import tune

from benchmarks.record import Record
from foretune.search_spaces import lr
from foretune.tuner.planning.execution import Execution
from foretune.tuner.records.files import read_json
from foretune.tuner.sweeps.sweep import sweep

BOUND, LATE_S = 1.05, 5.0
ABSENT, WELL, SLOW, DEAD = "absent", "well", "5 s slow", "dead"

DOOR = """
import socket, sys, threading, time
port, behind, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def pump(source, target, late):
    while data := source.recv(65536):
        time.sleep(late)
        target.sendall(data)
    target.close()

with socket.create_server(("127.0.0.1", port)) as door:
    while True:
        client, _ = door.accept()
        server = socket.create_connection(("127.0.0.1", behind))
        threading.Thread(target=pump, args=(client, server, 0), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, seconds), daemon=True).start()
"""


class NoSender:
    """Stands where `MLflowSender` would, and sends nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def start(self) -> None:
        """Starts nothing."""

    def trial_started(self, run_id: str) -> None:
        """Notes nothing."""

    def trial_ended(self, run_id: str) -> None:
        """Notes nothing."""

    def artifact(self, path: Path) -> None:
        """Attaches nothing."""

    def close(self, timeout_s: float = 0.0, *, interrupted: bool = False) -> str:
        """Returns that nothing waits."""
        return ""


def main() -> int:
    """Measures, prints and judges; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--steps", type=int, default=200, help="updates of a trial")
    parser.add_argument("--save", action="store_true", help="write results/tracking.txt")
    arguments = parser.parse_args()
    record = Record("tracking")
    logging.getLogger("ray").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # So that the servers end with it.
    space = {**lr.SPACE, "model.size": tune.grid_search(arguments.sizes)}
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as uris:
        rounds = [
            {name: timed(space, arguments.steps, uri) for name, uri in uris.items()}
            for _ in range(arguments.rounds)
        ]
    for name in uris:
        seconds = ", ".join(f"{taken[name][0]:.1f}" for taken in rounds)
        end = max(taken[name][1] for taken in rounds)
        record.say(f"{name:9} {seconds} s; after its last outcome {end:.1f} s at most")
    record.claims(_judged(rounds, name) for name in (WELL, SLOW, DEAD))
    return record.close(save=arguments.save)


def _judged(rounds: list[dict[str, tuple[float, float]]], name: str) -> tuple[str, bool]:
    ratio = median(taken[name][0] / taken[ABSENT][0] for taken in rounds)
    return f"MLflow {name}: {ratio:.3f} times <= {BOUND:g}", ratio <= BOUND


def timed(space: dict[str, Any], steps: int, uri: str) -> tuple[float, float]:
    """Returns the seconds of a sweep's trials, and those from its last outcome to its end.

    An empty uri runs it without MLflow.
    """
    without = patch("foretune.tuner.sweeps.execute.MLflowSender", NoSender)
    with tempfile.TemporaryDirectory() as folder, nullcontext() if uri else without:
        result = sweep(
            space,
            out=Path(folder) / "sweep",
            overrides={"steps": steps},
            execution=Execution(tracking_uri=uri),
        )
        over = time.time()
        if result.exit_code:
            raise SystemExit(result.exit_code)
        ends = [read_json(path) for path in result.directory.glob("runs/*/outcome.json")]
    last = max(end["ended"] for end in ends)
    return last - min(end["opened"] for end in ends), over - last


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Gives the URI of each kind of server; empty is none at all."""
    server, door, nobody = (free_port() for _ in range(3))
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(server)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "kept")]
    late = [sys.executable, "-c", DOOR, str(door), str(server), str(LATE_S)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for words in (command, late):
            process = subprocess.Popen(
                ["nice", "-n", "19", *words],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            started.append(process)
        uris = {WELL: server, SLOW: door, DEAD: nobody}
        _wait_for(f"http://127.0.0.1:{server}/health", started[0])
        yield {ABSENT: "", **{name: f"http://127.0.0.1:{port}" for name, port in uris.items()}}
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Returns a port where nobody listens now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=30)
            return
        time.sleep(0.2)
    raise RuntimeError("MLflow's server has ended")


if __name__ == "__main__":
    sys.exit(main())
