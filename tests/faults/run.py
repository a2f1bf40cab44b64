"""`make faults`: every fault of the table on real processes; prints tried, survived, lost.

python tests/faults/run.py [--only NAME] [--times N] [--seed S] [--jobs N]
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "support")]

from checks import wrong  # noqa: E402
from place import Lost, Place, References  # noqa: E402
from table import FAULTS, Fault  # noqa: E402

from foretune.tuner.records.provenance import commit, machine, versions  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try of a fault, for a process of its own."""

    fault: int
    """Its place in FAULTS."""
    number: int
    seed: int
    base: Path


def main() -> int:
    """Tries them all; 1 where something is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names, or a group")
    parser.add_argument("--times", type=int, help="tries of each fault whose moment is random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once")
    how = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    _hear_signals()
    facts = machine()
    print(f"machine: {facts['processor']}, {facts['cpus']} CPUs, {facts['system']}")
    print(f"versions: {', '.join(f'{k} {v}' for k, v in versions().items())}; {commit()}\n")
    print(f"{'fault':<52}{'tried':>7}{'survived':>10}{'lost':>6}{'seconds':>9}", flush=True)
    base, began = Path(tempfile.mkdtemp(prefix="faults-")), time.monotonic()
    rows = _rows(how.only, how.times, how.seed, base)
    sums = [0, 0]
    with get_context("spawn").Pool(how.jobs, _hear_signals) as pool:
        results = pool.imap(attempt, [one for tries in rows.values() for one in tries])
        for fault, tries in rows.items():
            ended = [next(results) for _ in tries]
            lost = [f"  lost: try {n}: {text}" for n, (text, _) in enumerate(ended) if text]
            sums = [sums[0] + len(tries), sums[1] + len(lost)]
            seconds = sum(seconds for _, seconds in ended)
            row = f"{len(tries):>7}{len(tries) - len(lost):>10}{len(lost):>6}{seconds:>9.0f}"
            print("\n".join((f"{fault.name:<52}{row}", *lost)), flush=True)
        pool.close()
        pool.join()
    minutes = (time.monotonic() - began) / 60
    row = f"{sums[0]:>7}{sums[0] - sums[1]:>10}{sums[1]:>6}"
    print(f"{'all':<52}{row}   {minutes:.1f} minutes, {how.jobs} at once")
    if not sums[1]:
        shutil.rmtree(base, ignore_errors=True)
    return int(sums[1] > 0)


def _rows(only: str, times: int | None, seed: int, base: Path) -> dict[Fault, list[Try]]:
    """The faults that are asked for, and the tries of each."""
    references = References(base / "counted")
    chosen = [f for f in FAULTS if only in (*f.name.split(","), f.group) or only in f.name]
    return {
        fault: [
            Try(fault=FAULTS.index(fault), number=number, seed=seed * 1000 + number, base=base)
            for number in range(fault.tries(references, times))
        ]
        for fault in chosen
    }


def _hear_signals() -> None:
    """A process that is told to end takes with it what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # A shell's background job.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def _references(base: Path) -> References:
    """What nothing disturbed, made once in each process."""
    return References(base / f"undisturbed-{os.getpid()}")


def attempt(one: Try) -> tuple[str, float]:
    """Tries a fault once; returns what was lost, or nothing, and how many seconds it took.

    What is lost stays on disk.
    """
    started, folder = time.monotonic(), one.base / f"{one.fault}-{one.number}"
    place = Place(_references(one.base), folder, seed=one.seed, number=one.number)
    try:
        FAULTS[one.fault].run(place)
        lost = [*place.said, *wrong(place)]
    except Lost as error:
        lost = [str(error)]
    except Exception as error:  # The next one is tried all the same.
        lost = [f"{type(error).__name__}: {error} {traceback.format_exc()[-600:]}"]
    finally:
        place.close(keep=True)
    seconds = time.monotonic() - started
    if not lost:
        shutil.rmtree(folder, ignore_errors=True)
        return "", seconds
    when = f"{place.moment}: " if place.moment else ""
    return f"{when}{'; '.join(lost)} (kept: {folder})", seconds


if __name__ == "__main__":
    sys.exit(main())
