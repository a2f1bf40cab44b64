"""Files of a sweep, written whole or not at all, except `metrics.jsonl`, which grows by lines.

What of them was lost or changed since is seen when they are read.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from foretune.analysis.records.checksum import note_checksum
from foretune.analysis.records.rows import last_step, lines_below, noted, whole_lines
from foretune.analysis.records.run_files import read_metrics
from foretune.argument_error import Argument, ArgumentError
from foretune.whole_files import atomic_write, sync_folder

METRICS_FILE = "metrics.jsonl"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(_text(value))


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """Writes the JSON of a record and, first, its checksum beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note_checksum(path, _text(value).encode())
    write_json(path, value)


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file; ValueError names a damaged one."""
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # Of JSON, or of its encoding.
        raise ValueError(
            f"{path} must be JSON, got a damaged file ({error}); restore it."
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {value!r:.100}; restore it.")
    return value


def known_fields(facts: Mapping[str, Any], target: type, file: str, **keys: str) -> dict[str, Any]:
    """Returns what JSON values say of the fields of a dataclass; other keys are passed over.

    keys names those that are called otherwise than their field. What an older version hasn't
    written is left to the field's default; ValueError where it has none, and for a value of another
    type.
    """
    found: dict[str, Any] = {}
    types = _types(target)
    for f in fields(target):
        key = keys.get(f.name, f.name)
        if key in facts:
            found[f.name] = facts[key]
            if not fits(facts[key], types[f.name]):
                raise ValueError(
                    f"{file} must hold {key} as {f.type}, got {facts[key]!r:.100}; restore it."
                )
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(
                f"{file} must hold {key}, got {', '.join(facts) or 'nothing'}; restore it, or use "
                f"the version of foretune that wrote it."
            )
    return found


def fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value may be one of a type; for a dataclass, the values of its fields."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if origin is Annotated:
        return fits(value, get_args(kind)[0])
    if origin is Literal:
        return value in get_args(kind)
    kind = origin or kind
    if kind is Any or kind in (None, type(None)):
        return kind is Any or value is None
    if kind in (int, float):  # True is an int.
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind in (tuple, list):
        return isinstance(value, tuple | list)
    return isinstance(value, kind) or (is_dataclass(kind) and isinstance(value, Mapping))


@cache
def _types(target: type) -> dict[str, Any]:
    return get_type_hints(target)  # Postponed annotations are text in a field's type.


def local_path(argument: str, text: str | Path, *, file: bool = False) -> Path:
    """Returns the path of a folder (or file) to write; ValueError for an object store's address."""
    # One slash, since a Path has lost the other; two letters, since one is a drive of Windows.
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(text)):
        return Path(text)
    if file:
        raise ArgumentError(
            Argument(argument),
            f" must be a file, got {text}; object stores can't be written, so name a path.",
        )
    raise ArgumentError(
        Argument(argument),
        f" must be a folder (shared by all nodes on a cluster), got {text}; object stores can't "
        f"append, so name a folder on a file system.",
    )


def check_writable(directory: Path) -> None:
    """Makes a directory; ValueError where that or writing in it is refused."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ArgumentError(
            Argument("out"),
            f" must be a directory that can be written, got {directory} ({error.strerror}); name "
            f"another.",
        ) from None


class MetricsFile:
    """Sink that appends rows to `metrics.jsonl`, one JSON object a line."""

    def __init__(self, path: Path, *, keep_below: int = 0):
        """Keeps the rows below a step that are there; ValueError where some of them are missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = lines_below(whole_lines(path), keep_below)
        if last_step(kept) != keep_below - 1:
            read_metrics(path)  # It names the line that is damaged.
            raise ValueError(
                f"{path} must hold every row before step {keep_below}, got {len(kept)} whole ones; "
                f"remove the run's checkpoint to train it from the start."
            )
        if path.exists() and path.read_bytes() != b"".join(kept):
            with atomic_write(path) as partial:
                partial.write_bytes(b"".join(kept))
        if not path.exists():
            path.touch()
            sync_folder(path.parent)
        self._file = path.open("ab", buffering=1 << 16)
        self._count, self._sum = len(kept), zlib.crc32(b"".join(kept))

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the row of a step."""
        line = (json.dumps({"step": step, **metrics}, allow_nan=False) + "\n").encode()
        self._file.write(line)
        self._count, self._sum = self._count + 1, zlib.crc32(line, self._sum)

    @property
    def rows(self) -> dict[str, Any]:
        """How many rows there are, and their checksum: see `noted`."""
        return noted(self._count, self._sum)

    def flush(self) -> None:
        """Makes the rows so far visible to readers."""
        self._file.flush()

    def sync(self) -> dict[str, Any]:
        """Makes the rows so far outlive a power cut; returns `rows`."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.rows

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()
