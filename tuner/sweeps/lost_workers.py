"""Which trials go on after their worker was lost, and why the others don't, in a few words.

Nothing here reads what Ray pickled: a directory may come from somebody else.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from foretune.tuner.config.run import Run
from foretune.tuner.sweeps.last_words import forget_last_words, keep_error, read_last_words
from foretune.tuner.sweeps.micro_batch import halve

RETRIES = 3
"""How often in a row a trial goes on after its worker was lost and it had got no further."""
NODE = re.compile(
    r"NodeDiedError|node (has )?(died|crashed)|node.*(marked dead|is dead)|Owner's node", re.DOTALL
)
MEMORY = re.compile(
    r"OutOfMemoryError|running low on memory|memory usage threshold|memory pressure"
)
DIED = re.compile(r"[Aa]ctor (died|is dead)|worker (process )?(has )?died")
ERROR = re.compile(r"^((?:\w+\.)*\w+(?:Error|Exception): .+)$", re.MULTILINE)
"""The last line of a traceback."""
RAYS = re.compile(r"ray\.|(Ray\w*|Actor\w+|Worker\w+|System)(Error|Exception)")
"""What Ray says of a worker, which is no reason."""
NOTHING_SAID = (
    "the worker's process ended without a word: killed, by the system where memory ran out, or "
    "ended by its own code (os._exit)"
)


@dataclass(slots=True)
class _Losses:
    furthest: int = 0
    """The last step that was reported."""
    at: int = -1
    """The same when the worker was lost the last time."""
    in_a_row: int = 0
    reason: str = ""


class LostWorkers:
    """The losses of each run since this driver began."""

    def __init__(self, runs_dir: Path, timeout_s: float = 0.0):
        """timeout_s is the time in which a trial must go on."""
        self._runs_dir, self._timeout_s = runs_dir, timeout_s
        self._runs: dict[str, _Losses] = {}

    def reported(self, run_id: str, step: int) -> None:
        """A run has got to a step."""
        losses = self._runs.setdefault(run_id, _Losses())
        losses.furthest = max(losses.furthest, step)

    def goes_on(self, run_id: str, run: Run, text: str) -> bool:
        """Whether a run whose worker was lost goes on from its checkpoint on another one.

        text is what Ray says of it. On spot nodes workers are lost again and again: that counts
        only where the run has got no further since the last time.
        """
        losses, run_dir = self._runs.setdefault(run_id, _Losses()), self._runs_dir / run_id
        words = read_last_words(run_dir)
        if words:
            keep_error(run_dir, words.stack)
        forget_last_words(run_dir)
        if words and words.hung:
            losses.reason = f"no progress for {self._timeout_s:g} s{words.where}"
            return False
        if MEMORY.search(text):
            losses.reason = "out of memory: Ray ended its worker, since its machine had hardly any"
            return bool(halve(run_dir, run, "its machine ran out of memory"))
        if NODE.search(text) and not words:
            losses.reason = "the worker's node was lost"
            return True  # No fault of the run's: there may be other nodes, or none, and it waits.
        moved = losses.furthest > losses.at
        losses.at = losses.furthest
        losses.in_a_row = 1 if moved else losses.in_a_row + 1
        losses.reason = self._in_words(words.what + words.where if words else "", text)
        if losses.in_a_row > 1:
            losses.reason += f"; {losses.in_a_row} times without getting further"
        return losses.in_a_row <= RETRIES

    def reason(self, run_id: str) -> str:
        """Returns why a run doesn't go on."""
        losses = self._runs.get(run_id)
        return losses.reason if losses and losses.reason else "the worker couldn't start"

    def _in_words(self, crash: str, text: str) -> str:
        if crash:
            return crash
        errors = [line for line in ERROR.findall(text) if not RAYS.match(line)]
        if errors:  # Of a module that the worker can't import, say.
            return errors[-1][:300]
        lines = text.splitlines()
        return lines[-1].strip() if lines and not DIED.search(text) else NOTHING_SAID


def last_failure(error_file: Path) -> str:
    """Returns what Ray wrote last of a trial's failures, or nothing."""
    try:
        text = error_file.read_text(errors="replace")
    except OSError:
        return ""
    return re.split(r"^Failure # \d+ \(occurred at .+\)$", text, flags=re.MULTILINE)[-1].strip()
