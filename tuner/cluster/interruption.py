"""SIGINT and SIGTERM during a sweep, and a way out where Ray has ended, with them or without.

A signal to a process group or a job (timeout, slurm) ends Ray's own processes as well. A call to
them then blocks in C, where no Python handler runs, until Ray ends this process after 60 s with
exit code 1. So a thread gets the signals too, and leaves where Ray's head answers no more. Signals
also get lost in Ray: what they raise in a callback of C is printed and forgotten.
"""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SILENCE_S = 2.0
"""How long Ray's head must not answer, in seconds, to be gone."""
CHANGE_S = 8.0
"""The same while Ray starts or ends."""
HURRY_S = 1.0
"""How long after a signal a second one follows where there is nothing to keep, in seconds."""
LOOK_S = 0.5
EXIT_CODE = 130
LOST_CODE = 3


class Interruption:
    """Within its block SIGTERM does what Ctrl-C does, and both end it with KeyboardInterrupt.

    So does a reader of the output that has gone, and what fails because of a signal. The message is
    the note: what to do next. Outside of the main thread, where signals can't be handled, it
    does nothing.
    """

    def __init__(self, note: Callable[[], str]):
        self._note = note
        self._places: tuple[str, ...] = ()
        self._lost: tuple[str, float] | None = None
        self._hurry: Callable[[], bool] | None = None
        self._nothing_to_keep = True
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

    @property
    def at_start(self) -> bool:
        """Whether a signal came when there was nothing to keep yet."""
        return self.heard and self._nothing_to_keep

    def __enter__(self) -> "Interruption":
        if self._main:
            self._handler = signal.signal(signal.SIGTERM, _as_ctrl_c)
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            self._thread.start()
        return self

    def watch(self, *places: str, lost: tuple[str, float] | None = None) -> None:
        """Begins to watch Ray's processes, each by its HOST:PORT.

        lost is a note and seconds: without a signal, too, this process ends where one of them has
        not answered for so long. Call it after ray.init, which takes SIGTERM. Raises
        KeyboardInterrupt where a signal came before, and got lost.
        """
        if self._caught.is_set():
            raise KeyboardInterrupt
        self._places, self._lost = places, lost
        if self._main:
            signal.signal(signal.SIGTERM, _as_ctrl_c)

    def unwatch(self) -> None:
        """Lets Ray's processes go silent, which they do when this process ends them."""
        self._places, self._lost = (), None

    @contextmanager
    def hurried(self, nothing_to_keep: Callable[[], bool]) -> Iterator[None]:
        """Within its block a second signal follows the first where there is nothing to keep.

        Tune takes the first to end its trials, for which it waits up to 10 s.
        """
        self._hurry = nothing_to_keep
        try:
            yield
        finally:
            self._hurry, self._nothing_to_keep = None, nothing_to_keep()

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
        answered = time.monotonic()
        while not self._caught.is_set():
            if select.select([self._reader], [], [], LOOK_S)[0]:
                number = os.read(self._reader, 1)
                if not number:
                    return
                if number[0] in SIGNALS:
                    self._caught.set()
            elif not (lost := self._lost) or all(map(_answers, self._places)):
                answered = time.monotonic()
            elif time.monotonic() - answered > lost[1]:
                self._leave(lost[0], LOST_CODE)
        self._after_signal()

    def _after_signal(self) -> None:
        caught = answered = time.monotonic()
        hurried = gone = False
        while not self._done.wait(LOOK_S):
            places, hurry = self._places, self._hurry
            if places and all(map(_answers, places)):
                answered = time.monotonic()
            else:
                gone = gone or bool(places)  # Then its end takes no care of anything, either.
                if time.monotonic() - answered > (SILENCE_S if gone else CHANGE_S):
                    self._leave(self._note(), EXIT_CODE)
            if hurry and not hurried and time.monotonic() - caught > HURRY_S and hurry():
                hurried = True
                os.kill(os.getpid(), signal.SIGINT)

    def _leave(self, note: str, code: int) -> None:
        with self._lock:
            if self._done.is_set():
                return
            try:
                print(note, flush=True)
            finally:
                os._exit(code)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # Ignored, as in a shell's background job.
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _answers(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=SILENCE_S).close()
    except OSError:
        return False
    return True
