"""Which files of a sweep's directory are attached to its run, and that nothing beside it is.

Standard library only, like `tuner.tracking.outbox`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

ARTIFACTS = "mlflow-artifacts.jsonl"
"""One path a line: files and folders for the sweep's run."""


def ask_for(directory: Path, path: Path) -> None:
    """Notes a file or a folder of a sweep's directory, to be attached."""
    inside = os.path.relpath(path.absolute(), directory)
    with (directory / ARTIFACTS).open("a") as file:
        file.write(json.dumps(inside) + "\n")


def artifacts(sweep_dir: Path) -> list[str]:
    """Returns the paths asked for, in order, relative to the directory; "" for a damaged line."""
    try:
        lines = (sweep_dir / ARTIFACTS).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [_path_of(line) for line in lines[:-1]]


def files(directory: Path, name: str) -> Iterator[tuple[Path, str | None]]:
    """Yields a file, or those of a folder, each with the folder that MLflow puts it into.

    What isn't there is passed over. Whether a file is inside the directory is left to `is_inside`.
    """
    path = directory / name
    if not name or not os.path.exists(path):
        return
    if not path.is_dir() or not is_inside(path, directory):
        yield path, None
        return
    for folder, _, names in os.walk(path):  # Which doesn't follow links to folders.
        inside = Path(path.name, os.path.relpath(folder, path))
        yield from ((Path(folder, name), inside.as_posix()) for name in sorted(names))


def is_inside(path: Path, directory: Path) -> bool:
    """Whether a path, its links followed, is below a directory."""
    return Path(os.path.realpath(path)).is_relative_to(directory)


def _path_of(line: bytes) -> str:
    try:
        path = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    return path if isinstance(path, str) and "\0" not in path else ""
