"""`make faults`: every fault of the table on real processes; prints tried, survived, lost.

python tests/faults/run.py [--only NAME] [--times N] [--seed S]
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "support")]

from checks import wrong  # noqa: E402
from place import Lost, Place, References  # noqa: E402
from table import FAULTS, Fault  # noqa: E402

from foretune.tuner.records.provenance import commit, machine, versions  # noqa: E402


def attempt(fault: Fault, references: References, folder: Path, number: int, seed: int) -> str:
    """Tries a fault once; returns what was lost, or nothing. What is lost stays on disk."""
    place = Place(references, folder, seed=seed, number=number)
    try:
        fault.run(place)
        lost = [*place.said, *wrong(place)]
    except Lost as error:
        lost = [str(error)]
    except Exception as error:  # The next one is tried all the same.
        lost = [f"{type(error).__name__}: {error} {traceback.format_exc()[-600:]}"]
    finally:
        place.close(keep=True)
    if not lost:
        shutil.rmtree(folder, ignore_errors=True)
        return ""
    return f"{place.moment + ': ' if place.moment else ''}{'; '.join(lost)} (kept: {folder})"


def main() -> int:
    """Tries them all; 1 where something is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names, or a group")
    parser.add_argument("--times", type=int, help="tries of each fault whose moment is random")
    parser.add_argument("--seed", type=int, default=0)
    how = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # A shell's background job.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    chosen = [f for f in FAULTS if how.only in (*f.name.split(","), f.group) or how.only in f.name]
    facts = machine()
    print(f"machine: {facts['processor']}, {facts['cpus']} CPUs, {facts['system']}")
    print(f"versions: {', '.join(f'{k} {v}' for k, v in versions().items())}; {commit()}\n")
    print(f"{'fault':<52}{'tried':>7}{'survived':>10}{'lost':>6}{'seconds':>9}", flush=True)
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    sums, began = [0, 0], time.monotonic()
    references = References(base)
    for fault in chosen:
        started, lost = time.monotonic(), []
        count = fault.tries(references, how.times)
        for number in range(count):
            seed = how.seed * 1000 + number
            folder = base / f"{FAULTS.index(fault)}-{number}"
            if sentence := attempt(fault, references, folder, number, seed):
                lost.append(f"  lost: try {number}: {sentence}")
        sums = [sums[0] + count, sums[1] + len(lost)]
        seconds = time.monotonic() - started
        row = f"{count:>7}{count - len(lost):>10}{len(lost):>6}{seconds:>9.0f}"
        print("\n".join((f"{fault.name:<52}{row}", *lost)), flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{'all':<52}{sums[0]:>7}{sums[0] - sums[1]:>10}{sums[1]:>6}   {minutes:.1f} minutes")
    if not sums[1]:
        shutil.rmtree(base, ignore_errors=True)
    return int(sums[1] > 0)


if __name__ == "__main__":
    sys.exit(main())
