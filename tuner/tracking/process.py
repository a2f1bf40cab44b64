"""The process that sends a sweep's directory to MLflow, beside the driver and not a thread in it.

Measured with both cores training: a sending thread at low priority made the driver late by 5 s
in 12 (it holds the GIL while it waits for a core), one at normal priority by 1.2 s; a process
made it late by 13 ms at most, and a hanging server is ended by killing it. `tuner.tracking.sender`
starts it.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO, cast

from filelock import FileLock

from foretune.redaction import RedactedLines, remember_environment, remember_uri
from foretune.tuner.tracking.outbox import ended, folders
from foretune.tuner.tracking.reasons import why
from foretune.tuner.tracking.uploader import Sender

POLL_S, LONGEST_PAUSE_S = 1.0, 30.0


def follow(sender: Sender, orders: "queue.SimpleQueue[list[Any]]") -> None:
    """Sends until the driver closes or is gone; a failed attempt makes the next one wait longer."""
    pause, closing = POLL_S, ""
    while True:
        closing = closing or _collect_orders(sender, orders, pause)
        before = sender.calls
        try:
            sender.send(closing=closing)
            error, pause = "; ".join(sender.refused.values()), POLL_S
        except Exception as reason:  # Whatever MLflow raises: the directory keeps what waits.
            error, pause = why(reason, sender.uri), min(2 * pause, LONGEST_PAUSE_S)
            print(f"{time.strftime('%FT%T')} {error}", file=sys.stderr, flush=True)
            if closing and sender.calls > before:
                continue
        sender.state.error = error
        sender.save(now=bool(closing))
        if closing:
            return


def _collect_orders(sender: Sender, orders: "queue.SimpleQueue[list[Any]]", seconds: float) -> str:
    """Collects orders for some seconds; returns the sweep's status at once if one is to close."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            order, *rest = orders.get(timeout=left)
        except queue.Empty:
            break
        if order == "close":
            unfinished = not all(ended(folder) for folder in folders(sender.dir))
            return "KILLED" if unfinished or rest[0] else "FINISHED"
        sender.started[rest[0]] = rest[1]
    return ""


def _listen(orders: "queue.SimpleQueue[list[Any]]") -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(["close", True])  # Closed already, or the driver is gone.


def main(directory: str) -> None:
    """Follows a directory by the orders on standard input; the URI is in MLFLOW_TRACKING_URI."""
    sweep_dir, uri = Path(directory), os.environ["MLFLOW_TRACKING_URI"]
    sys.stderr = cast("TextIO", RedactedLines(sys.stderr))  # Into mlflow.log.
    remember_environment()
    remember_uri(uri)
    orders: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):
        os.nice(10)  # Training comes first.
    with FileLock(sweep_dir / ".mlflow.lock"):
        follow(Sender(sweep_dir, uri), orders)
