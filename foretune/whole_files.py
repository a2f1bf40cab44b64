"""Files that are written whole or not at all.

It stands above the four packages and imports none of them, nor anything beyond the standard
library, so that training, `models`, `analysis` and MLflow's process can all write by it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Gives a path to write to; its file takes the place of `path` once the block has ended.

    A reader sees the old file or the new one, never a part. An error in the block leaves the old
    file alone. What a killed process has left is overwritten by the next one; shared is for a file
    that several processes may write at the same time, each by a path of its own.
    """
    name = f".{path.name}.{os.getpid()}.partial" if shared else f"{path.name}.partial"
    partial = path.with_name(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # Else a power cut may keep the new name and lose the content.
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
