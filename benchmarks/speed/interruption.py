"""Claim: Ctrl-C while a sweep starts up ends it within 10 s, with exit code 130 and nothing left.

Start-up is from the command to the first row of the first trial, measured once. SIGINT then comes
at moments spread evenly over it, each in a sweep of its own. The time runs from the signal until
the command has ended; when the last process that it had started has ended stands beside.

    python -m benchmarks.speed.interruption [--moments 20] [--save]
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from benchmarks.record import Record

BOUND_S, LIMIT_S = 10.0, 600.0
INTERRUPTED = 130
MARK = "FORETUNE_BENCHMARK"
WORDS = ("sweep", "lr", "--sizes", "16", "--grid", "optimizer.lr=1e-2,3e-2", "--set", "steps=20000")


def main() -> int:
    """Measures, prints and judges; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"{__doc__}".partition("\n\n")[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--save", action="store_true", help="write results/interruption.txt")
    arguments = parser.parse_args()
    record = Record("interruption")
    interrupted(None)  # What isn't in the caches yet.
    whole, *_ = interrupted(None)
    record.say(f"start-up, until the first row: {whole:.1f} s\n")
    record.say(f"{'signal at':>10}  {'ended after':>11}  {'the last process after':>22}  exit code")
    taken, codes = [], []
    for number in range(arguments.moments):
        at, ended, last, code = interrupted(whole * (number + 0.5) / arguments.moments)
        record.say(f"{at:8.1f} s  {ended:9.1f} s  {last:20.1f} s  {code:9}")
        taken.append(ended)
        codes.append(code)
    middle = sorted(taken)[len(taken) // 2]
    record.claims(
        [
            (f"the slowest: {max(taken):.1f} s <= {BOUND_S:g} s", max(taken) <= BOUND_S),
            (f"exit code {INTERRUPTED} each time", set(codes) == {INTERRUPTED}),
        ]
    )
    record.say(f"        half of them within {middle:.1f} s")
    return record.close(save=arguments.save)


def interrupted(at: float | None) -> tuple[float, float, float, int]:
    """Starts a sweep and interrupts it after `at` seconds, or once the first row is there.

    Returns when the signal came, how long the command and then the last of its processes took from
    there, and the exit code.
    """
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep"
        with (Path(folder) / "output.txt").open("w") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "foretune", *WORDS, "--out", str(out)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, MARK: mark},
            )
        # A row or a moment, whichever is asked for; a command that has ended is past both.
        _wait(lambda: process.poll() is not None or _reached(at, began, out))
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
        ended = time.monotonic()
        _wait(lambda: not _left(mark))
        return sent - began, ended - sent, time.monotonic() - sent, process.returncode


def _reached(at: float | None, began: float, out: Path) -> bool:
    if at is not None:
        return time.monotonic() - began >= at
    return any(path.stat().st_size for path in out.glob("runs/*/metrics.jsonl"))


def _wait(event: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT_S
    while not event():
        if time.monotonic() > until:
            raise TimeoutError(f"{event} didn't come within {LIMIT_S:g} s")
        time.sleep(0.01)


def _left(mark: str) -> bool:
    """Whether a process that carries the mark still runs."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (path / "environ").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marked and state != "Z":
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
