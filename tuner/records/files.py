"""Files of a sweep, written whole or not at all, except `metrics.jsonl`, which grows by lines."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretune.argument_error import Argument, ArgumentError


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w") as file:
        file.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Returns the JSON of a file; ValueError names a damaged one."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} must be JSON, got a damaged file ({error}); restore it."
        ) from None


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
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] < keep_below]
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text("".join(kept))
        partial.replace(path)
        self._file = path.open("a", buffering=1 << 16)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends the row of a step."""
        self._file.write(json.dumps({"step": step, **metrics}, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Makes the rows so far visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file but a torn last one, which a killed writer can leave."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
