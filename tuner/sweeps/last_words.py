"""What a worker that dies leaves behind: the stack of its Python, in a file in its run's folder.

Python's own faulthandler writes it, in C: where a library segfaults or aborts, and where a trial
hangs, also in code that never lets Python run. Nothing here needs torch or Ray.
"""

import faulthandler
import re
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import foretune

FAULT_FILE = ".fault.txt"
ERROR_FILE = "error.txt"
"""The traceback of a run that failed, for whoever mends it."""
STILL = 0.1
"""Share of its time limit within which a trial that went on isn't armed again: that takes 0.1 ms,
and an update of the smallest models 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWords:
    """Why a worker died, by its own file."""

    what: str
    """Like Segmentation fault, Aborted or Timeout."""
    place: str
    """The innermost file and line of a user's code, or else of any, or nothing."""
    stack: str
    """All that was written."""

    @property
    def hung(self) -> bool:
        """Whether it was ended since it didn't go on."""
        return self.what == "Timeout"

    @property
    def where(self) -> str:
        """The place with its preposition, or nothing."""
        return f" in {self.place}" if self.place else ""


class FaultFile:
    """The file of a worker that trains the run of a folder; closed, it is gone if nothing is in it.

    timeout_s is the time in which a trial must go on, else its process is ended; 0 is none.
    """

    def __init__(self, run_dir: Path, *, timeout_s: float = 0.0):
        self._path, self._timeout_s = run_dir / FAULT_FILE, timeout_s
        self._armed = 0.0
        self._file = self._path.open("w", buffering=1)
        self._file.write("\n".join((*_not_users(), "")) + "\n")
        faulthandler.enable(self._file)

    def goes_on(self) -> None:
        """Says that the trial goes on."""
        now = time.monotonic()
        if self._timeout_s and now - self._armed > STILL * self._timeout_s:
            self._armed = now
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def rests(self) -> None:
        """Says that the trial waits for others."""
        if self._timeout_s:
            faulthandler.cancel_dump_traceback_later()
            self._armed = 0.0

    def close(self) -> None:
        """Ends it."""
        self.rests()
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def read_last_words(run_dir: Path) -> LastWords | None:
    """Returns what the last worker of a run left when it died, or None where it left nothing."""
    try:
        text = (run_dir / FAULT_FILE).read_text(errors="replace")
    except OSError:
        return None
    ours, _, stack = text.partition("\n\n")
    found = re.search(r"^(?:Fatal Python error: (.+)|(Timeout) \(.+\)!)$", stack, re.MULTILINE)
    if not found:
        return None
    return LastWords(
        what=found[1] or found[2], place=_place(stack, tuple(ours.splitlines())), stack=stack
    )


def keep_error(run_dir: Path, text: str) -> None:
    """Writes a run's error.txt, if the disk takes it."""
    with suppress(OSError):
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / ERROR_FILE).write_text(text)


def forget_last_words(run_dir: Path) -> None:
    """Makes room for the next worker's."""
    with suppress(OSError):
        (run_dir / FAULT_FILE).unlink(missing_ok=True)


def _place(stack: str, ours: tuple[str, ...]) -> str:
    """Of the thread that trains: the innermost line outside of some folders, else of all."""
    threads = re.split(r"^(?:Current thread|Thread) .*$", stack, flags=re.MULTILINE)[1:]
    training = [t for t in threads if "/sweeps/trainable.py" in t] or threads[:1]
    frames = re.findall(r'^  File "(.+)", line (\d+)', "".join(training[:1]), re.MULTILINE)
    users = [frame for frame in frames if not frame[0].startswith((*ours, "<"))]
    for file, line in (users or frames)[:1]:
        return f"{Path(file).name}, line {line}"
    return ""


def _not_users() -> list[str]:
    """Folders of this process in which no user's code is: in another process they are others."""
    package = Path(foretune.__file__).parent
    folders = [package, *(link.resolve() for link in package.iterdir() if link.is_dir())]
    folders += [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    return [f"{folder}/" for folder in folders]
