"""Files of a sweep, written whole or not at all, except `metrics.jsonl`, which grows by lines."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from foretune.analysis.records.run_files import read_metrics
from foretune.argument_error import Argument, ArgumentError
from foretune.whole_files import atomic_write


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file; ValueError names a damaged one."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:  # Of JSON, or of its encoding.
        raise ValueError(
            f"{path} must be JSON, got a damaged file ({error}); restore it."
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {value!r}; restore it.")
    return value


def known_fields(facts: Mapping[str, Any], target: type, file: str, **keys: str) -> dict[str, Any]:
    """Returns what JSON values say of the fields of a dataclass; other keys are passed over.

    keys names those that are called otherwise than their field. What an older version hasn't
    written is left to the field's default; ValueError where it has none.
    """
    found: dict[str, Any] = {}
    for f in fields(target):
        key = keys.get(f.name, f.name)
        if key in facts:
            found[f.name] = facts[key]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(
                f"{file} must hold {key}, got {', '.join(facts) or 'nothing'}; restore it, or use "
                f"the version of foretune that wrote it."
            )
    return found


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
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = [row for row in read_metrics(path) if row["step"] < keep_below]
            with atomic_write(path) as partial:
                partial.write_text("".join(map(_line, kept)))
        self._file = path.open("a", buffering=1 << 16)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the row of a step."""
        self._file.write(_line({"step": step, **metrics}))

    def flush(self) -> None:
        """Makes the rows so far visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
