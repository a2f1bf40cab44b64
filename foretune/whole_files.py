"""Files that are written whole or not at all.

It stands above the four packages and imports none of them, nor anything beyond the standard
library, so that training, `models`, `analysis` and MLflow's process can all write by it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(
    path: Path, *, shared: bool = False, previous: Path | None = None, lasting: bool = True
) -> Iterator[Path]:
    """Gives a path to write to; its file takes the place of `path` once the block has ended.

    A reader sees the old file or the new one, never a part, and so it is after a power cut. An
    error in the block leaves the old file alone. What a killed process has left is overwritten by
    the next one; shared is for a file that several processes may write at the same time, each by a
    path of its own. previous is where the old file goes, in the same folder. Not lasting is for
    what may be lost in a power cut, and is faster by a sync or two of the disk.
    """
    name = f".{path.name}.{os.getpid()}.partial" if shared else f"{path.name}.partial"
    partial = path.with_name(name)
    try:
        yield partial
        if lasting:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())  # Else a power cut may keep the name and lose the content.
        if previous is not None and path.exists():
            _keep(path, previous)
        partial.replace(path)
        if lasting:
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some file systems have no such call.
            raise
    finally:
        os.close(descriptor)


def _keep(path: Path, previous: Path) -> None:
    """Gives a file a second name, which takes the place of another."""
    partial = previous.with_name(f"{previous.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)  # A rename alone would leave a moment without `path`.
    except OSError:
        path.replace(previous)  # A file system without links: readers look at `previous`, too.
    else:
        partial.replace(previous)
