"""The end of a sweep whose nodes are gone."""

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from foretune.tuner.cluster.nodes import alive_nodes

if TYPE_CHECKING:
    from foretune.tuner.cluster.connect import Connection


class Watchdog:
    """Ends a driver that waits for nodes that are gone; Tune alone would wait forever."""

    CLEANUP_S = 30.0
    """Tune's own clean-up may wait for trials that no longer answer; a second SIGINT skips it."""

    def __init__(
        self,
        connection: "Connection",
        cpus_per_trial: float,
        gpus_per_trial: float,
        *,
        stall_s: float = 600.0,
        cure: str = "foretune resume",
    ):
        """stall_s is the time without progress, in seconds; cure continues the sweep."""
        self.reason: str | None = None
        """Why the driver was ended, or None."""
        self._asks = (cpus_per_trial, gpus_per_trial)
        self._address = connection.address
        self._stall_s, self._cure = stall_s, cure
        self._progress = time.monotonic()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def tick(self) -> None:
        """Says that a trial made progress."""
        self._progress = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its callbacks, and what they hold, for a restore never asked for.

    def __enter__(self) -> "Watchdog":
        self.tick()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._done.set()
        self._thread.join(timeout=5.0)

    def _watch(self) -> None:
        while not self._done.wait(min(self._stall_s / 4, 10.0)):
            idle_s = time.monotonic() - self._progress
            if idle_s < self._stall_s or self._can_host():
                continue
            cpus, gpus = self._asks
            self.reason = (
                f"A sweep must have a node for its trials, got none alive at {self._address} with "
                f"{cpus:g} CPUs and {gpus:g} GPUs and no progress for {idle_s:.0f} s; bring nodes "
                f"back, then continue with: {self._cure}"
            )
            self._interrupt()
            if not self._done.wait(self.CLEANUP_S):
                self._interrupt()
            return

    def _can_host(self) -> bool:
        try:
            return any(node.slots(*self._asks) for node in alive_nodes())
        except Exception:
            return False  # The head is gone, and every node with it.

    def _interrupt(self) -> None:
        with self._lock:
            if not self._done.is_set():
                os.kill(os.getpid(), signal.SIGINT)
