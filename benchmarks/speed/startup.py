"""Claims: `import foretune` takes at most 0.3 s; `foretune --help` at most 4 times as long as a
Python that imports tyro, which reads the command line; `foretune COMMAND --help` at most 6 times.

Every measurement is a process of its own, from its start to its end. In each round all run once, in
turn, after one round that fills the caches; a ratio is the median over rounds of the ratio to the
import of tyro in the same round, so that drift of the machine cancels. `import foretune` is what it
adds to `python -c pass`.

    python -m benchmarks.speed.startup [--rounds 7] [--save]
"""

import argparse
import subprocess
import sys
import time
from statistics import median

from benchmarks.record import Record
from foretune.tuner.cli.main import COMMANDS

IMPORT_S, HELP, COMMAND_HELP = 0.3, 4.0, 6.0
"""Bounds: seconds, and times the import of tyro."""
NOTHING, TYRO, OURS = ("-c", "pass"), ("-c", "import tyro"), ("-c", "import foretune")
FORETUNE = ("-m", "foretune")


def main() -> int:
    """Measures, prints and judges; returns the exit code."""
    parser = argparse.ArgumentParser(description=f"{__doc__}".partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    record = Record("startup")
    helps = {name: (*FORETUNE, name, "--help") for name in COMMANDS}
    rounds = measure(
        [NOTHING, TYRO, OURS, (*FORETUNE, "--help"), *helps.values()], arguments.rounds
    )
    tyro = median(taken[TYRO] for taken in rounds)
    record.say(f"python -c 'import tyro': {tyro:.3f} s, the median of {arguments.rounds} rounds\n")
    ours = median(taken[OURS] - taken[NOTHING] for taken in rounds)
    record.claim(f"import foretune: {ours:.3f} s <= {IMPORT_S:g}", ours <= IMPORT_S)
    _claim(record, rounds, (*FORETUNE, "--help"), HELP)
    for words in helps.values():
        _claim(record, rounds, words, COMMAND_HELP)
    return record.close(save=arguments.save)


def measure(commands: list[tuple[str, ...]], rounds: int) -> list[dict[tuple[str, ...], float]]:
    """Returns the seconds of each command by round."""
    found = [{words: seconds(words) for words in commands} for _ in range(rounds + 1)]
    return found[1:]


def seconds(words: tuple[str, ...]) -> float:
    """Returns how long Python takes with these arguments; CalledProcessError where it fails."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _claim(
    record: Record,
    rounds: list[dict[tuple[str, ...], float]],
    words: tuple[str, ...],
    bound: float,
) -> None:
    ratio = median(taken[words] / taken[TYRO] for taken in rounds)
    record.claim(f"{' '.join(words[1:])}: {ratio:.2f} times <= {bound:g}", ratio <= bound)


if __name__ == "__main__":
    sys.exit(main())
