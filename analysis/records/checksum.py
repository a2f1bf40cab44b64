"""Checksums of a folder's records, so that a byte that has changed on disk is seen.

They stand in a file of their own beside the records, noted before a record is written: what ends in
between leaves the old record, whose checksum is still there. Records without one, older or others',
are taken as they are.
"""

import json
import zlib
from pathlib import Path
from typing import Any, Final

from foretune.whole_files import atomic_write

CHECKSUMS_FILE: Final = ".checksums.json"
KEPT: Final = 2
"""Checksums of a record: of the file that is there, and of the one that takes its place."""


def note_checksum(path: Path, content: bytes) -> None:
    """Notes what a record is going to be; its folder must be there.

    Notes lost in a power cut are as those of before: the record is taken as it is.
    """
    noted = _noted(path.parent)
    sums = [s for s in noted.get(path.name, []) if s != checksum(content)]
    noted[path.name] = [*sums, checksum(content)][-KEPT:]
    with atomic_write(path.parent / CHECKSUMS_FILE, lasting=False) as partial:
        partial.write_text(json.dumps(noted, indent=1) + "\n")


def has_changed(path: Path) -> bool:
    """Whether a record isn't as foretune wrote it; one without a checksum can't tell, and is."""
    sums = _noted(path.parent).get(path.name)
    return sums is not None and checksum(path.read_bytes()) not in sums


def check_unchanged(path: Path) -> None:
    """Raises ValueError where a record isn't as foretune wrote it."""
    if has_changed(path):
        raise ValueError(
            f"{path} must be as foretune wrote it, got a file that has changed since; restore it, "
            f"or remove {CHECKSUMS_FILE} beside it if you changed it yourself."
        )


def checksum(content: bytes) -> str:
    """Returns the CRC-32 of bytes as eight hexadecimal digits."""
    return f"{zlib.crc32(content):08x}"


def _noted(folder: Path) -> dict[str, list[Any]]:
    try:
        noted = json.loads((folder / CHECKSUMS_FILE).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}  # One that is damaged says nothing.
    if not isinstance(noted, dict):
        return {}
    return {name: sums for name, sums in noted.items() if isinstance(sums, list)}
