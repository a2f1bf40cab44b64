"""Live progress of a sweep as lines: what ended, how many are left, how long that takes."""

import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from foretune.argument_error import spelled
from foretune.tuner.training.outcome import Outcome

HEARTBEAT_SECONDS = 10.0


class Progress:
    """Prints a line for every trial that ends, and a heartbeat when none does.

    Time left: the work that is left, in floating-point operations, at the rate seen so far.
    """

    def __init__(
        self,
        costs: Mapping[str, float],
        *,
        done: int = 0,
        to_draw: int = 0,
        stream: TextIO | None = None,
    ):
        """costs are those of the trials that wait; to_draw more are still to be drawn."""
        self._left = dict(costs)
        self._work, self._known, self._to_draw = sum(costs.values()), len(costs), to_draw
        self._total, self._done = len(costs) + done + to_draw, done
        self._stream = stream or sys.stdout
        self._started = self._last = time.monotonic()
        self._running: dict[str, float] = {}
        self.reader_gone = False
        """Whether the stream is a pipe that nobody reads any more."""

    def drawn(self, run_id: str, cost: float) -> None:
        """A trial was drawn."""
        self._left[run_id] = cost
        self._work += cost
        self._known, self._to_draw = self._known + 1, self._to_draw - 1

    def started(self, run_id: str) -> None:
        """A trial started (or started again)."""
        self._running[run_id] = 0.0

    def reported(self, run_id: str, share: float) -> None:
        """A trial has done a share (0 to 1) of its steps."""
        self._running[run_id] = share
        if time.monotonic() - self._last > HEARTBEAT_SECONDS:
            self._line(f"{len(self._running)} running")

    def ended(self, run_id: str, label: str, outcome: Outcome) -> None:
        """A trial ended."""
        self._left.pop(run_id, None)
        self._running.pop(run_id, None)
        self._done += 1
        loss, forecast = outcome.final_val_loss, outcome.forecast
        text = f"loss {loss:.3f}" if loss is not None else "no loss"
        reason = f" ({outcome.reason})" if outcome.outcome != "finished" else ""
        if forecast and forecast["audited"]:
            reason += f" (audited; at step {forecast['step']} {forecast['reason']})"
        self._line(f"{label}: {outcome.outcome}, {text}{reason}")

    def silent(self, label: str, seconds: float, usual: float | None) -> None:
        """A trial hasn't reported for long; usual is its longest time between two reports."""
        rule = f", {_clock(usual)} between reports so far" if usual else ""
        self._line(
            f"{label}: silent for {_clock(seconds)}{rule}; {spelled('trial_timeout')} SECONDS ends "
            f"a trial that hangs"
        )

    def skipped(self, label: str, outcome: Outcome) -> None:
        """A trial was drawn that is not to begin: one more than are asked for."""
        self._total, self._done = self._total + 1, self._done + 1
        self._line(f"{label}: {outcome.outcome} ({outcome.reason})")

    def seconds_left(self) -> float | None:
        """Returns the seconds left, or None before anything is known."""
        begun = sum(self._left.get(r, 0.0) * share for r, share in self._running.items())
        left = sum(self._left.values()) - begun
        finished = self._work - left
        elapsed = time.monotonic() - self._started
        # Those to be drawn: as much work each as the ones that are known.
        left += self._to_draw * self._work / max(1, self._known)
        return elapsed * left / finished if finished > 0 else None

    def _line(self, text: str) -> None:
        self._last = time.monotonic()
        left = self.seconds_left()
        ahead = f", about {_clock(left)} left" if left else ""
        clock = _clock(self._last - self._started)
        width = len(str(self._total))
        self._print(f"[{self._done:{width}}/{self._total}] {clock}{ahead}  {text}")

    def _print(self, line: str) -> None:
        if self.reader_gone:
            return
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            self.reader_gone = True
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)  # Tune logs or wraps what a callback raises.


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
