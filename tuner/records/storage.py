"""Storage that fails, full, broken or away: no run's failure, which goes on when there is room."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

STORAGE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ENXIO)
)
"""Full, over quota, broken, mounted read-only, or away."""
PATIENCE_S = 30.0
"""How long storage may be away before the sweep ends, in seconds."""


def storage_error(error: BaseException | None) -> OSError | None:
    """Returns the error of the storage that an error is or comes from, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in STORAGE:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def patience(seconds: float | None = None) -> Iterator[None]:
    """Waits ever longer between its items, each of which is for another try; ends when time is up.

    seconds is PATIENCE_S where it isn't given.
    """
    until, pause = time.monotonic() + (PATIENCE_S if seconds is None else seconds), 0.5
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause *= 2
        yield


def storage_sentence(error: OSError, directory: Path | None, *, again: str = "") -> str:
    """Returns what failed of a sweep's storage, where, and what to do; again is how it goes on.

    directory is None where nobody knows it.
    """
    what = os.strerror(error.errno) if error.errno else str(error)
    place, free = (f" of {directory}", f" ({_free(directory)})") if directory else ("", "")
    return (
        f"The storage{place} must take what a sweep writes, got {what}{free}"
        f"; what is written stays readable: mend it, then "
        f"{again or f'foretune resume {directory}'}"
    )


def _free(directory: Path) -> str:
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return "free space unknown"
    return f"{usage.free / 2**20:,.1f} of {usage.total / 2**20:,.1f} MiB free"
