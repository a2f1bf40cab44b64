"""Trials that have been silent for much longer than they usually are."""

import time
from dataclasses import dataclass

LEAST_S = 60.0
TIMES = 10.0
"""How many times as long as usual is much longer."""
UNKNOWN_S = 60.0
"""What counts as usual before any trial has reported: data and model have to be opened."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A trial that has been silent for too long."""

    run_id: str
    seconds: float
    usual: float | None
    """Longest time between two reports so far, of this trial, else of any; none before the
    first."""


class Silence:
    """Follows trials by their reports; times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}
        self._longest: dict[str, float] = {}
        self._named: set[str] = set()

    def started(self, run_id: str, now: float | None = None) -> None:
        """A trial has a worker."""
        self._heard[run_id] = _now(now)
        self._named.discard(run_id)

    def reported(self, run_id: str, now: float | None = None) -> None:
        """A trial reported."""
        now = _now(now)
        gap = now - self._heard.get(run_id, now)
        self._longest[run_id] = max(self._longest.get(run_id, 0.0), gap)
        self.started(run_id, now)

    def ended(self, run_id: str) -> None:
        """A trial has no worker any more."""
        self._heard.pop(run_id, None)
        self._named.discard(run_id)

    def overdue(self, now: float | None = None) -> list[Silent]:
        """Returns those that are silent for too long, each once until it reports again."""
        now = _now(now)
        found = [
            Silent(run_id, now - heard, self._usual(run_id))
            for run_id, heard in self._heard.items()
            if run_id not in self._named
        ]
        found = [s for s in found if s.seconds > max(LEAST_S, TIMES * (s.usual or UNKNOWN_S))]
        self._named.update(s.run_id for s in found)
        return found

    def _usual(self, run_id: str) -> float | None:
        return self._longest.get(run_id) or max(self._longest.values(), default=None)


def _now(now: float | None) -> float:
    return time.monotonic() if now is None else now
