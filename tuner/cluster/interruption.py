"""SIGINT and SIGTERM during a sweep, and a way out where Ray has ended with them.

A signal to a process group or a job (timeout, slurm) ends Ray's own processes as well. A call to
them then blocks in C, where no Python handler runs, until Ray ends this process after 60 s with
exit code 1. So a thread gets the signals too, and leaves where Ray's head answers no more.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SILENCE_S = 2.0
"""How long Ray's head must not answer, in seconds, to be gone."""
CHANGE_S = 15.0
"""The same while Ray starts or ends: 8 s were seen for the end of one whose head had gone."""
EXIT_CODE = 130


class Interruption:
    """Within its block SIGTERM does what Ctrl-C does, and both end it with KeyboardInterrupt.

    So does a reader of the output that has gone, and what fails because of a signal. The message is
    the note: what to do next. Outside of the main thread, where signals can't be handled, it
    does nothing.
    """

    def __init__(self, note: Callable[[], str]):
        self._note = note
        self._head = ""
        self._caught, self._done, self._lock = (
            threading.Event(),
            threading.Event(),
            threading.Lock(),
        )
        self._main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._listen, name="interruption", daemon=True)

    @property
    def heard(self) -> bool:
        """Whether a signal came."""
        return self._caught.is_set()

    def __enter__(self) -> "Interruption":
        if self._main:
            self._handler = signal.signal(signal.SIGTERM, _as_ctrl_c)
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._thread.start()
        return self

    def watch(self, head: str) -> None:
        """Begins to watch Ray's head at HOST:PORT; call it after ray.init, which takes SIGTERM."""
        self._head = head
        if self._main:
            signal.signal(signal.SIGTERM, _as_ctrl_c)

    def unwatch(self) -> None:
        """Lets Ray's head go silent, which it does when this process ends it."""
        self._head = ""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not self._main:
            return
        with self._lock:
            self._done.set()
        # Ctrl-C, a reader that has gone, or a failure, which may be faster than the thread.
        ended = isinstance(error, KeyboardInterrupt | BrokenPipeError)
        heard = ended or (error is not None and self._caught.wait(0.2))
        self._restore()
        if heard:
            raise KeyboardInterrupt(self._note()) from None

    def _restore(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        if self._handler is not None:  # None: set by C, out of Python's reach.
            signal.signal(signal.SIGTERM, self._handler)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _listen(self) -> None:
        while not self._caught.is_set():
            number = os.read(self._reader, 1)
            if not number:
                return
            if number[0] in SIGNALS:
                self._caught.set()
        answered = time.monotonic()
        while not self._done.wait(0.5):
            head = self._head
            if head and _answers(head):
                answered = time.monotonic()
            elif time.monotonic() - answered > (SILENCE_S if head else CHANGE_S):
                self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._done.is_set():
                return
            try:
                print(self._note(), flush=True)
            finally:
                os._exit(EXIT_CODE)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # Ignored, as in a shell's background job.
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _answers(head: str) -> bool:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SILENCE_S).close()
    except OSError:
        return False
    return True
