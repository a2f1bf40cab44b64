"""A disk that fails: every write, sync, rename and open below a folder is counted, and one of them
fails, or is the last before the power goes.

After SQLite's tests: for every k in turn the k-th operation fails, and what is on disk must do.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch


class PowerCut(BaseException):
    """The machine is gone: nothing catches it."""


class Disk:
    """Within its block the operations below a folder are counted, and `fail` is asked at each.

    What was synced is remembered, for `after_power_cut`.
    """

    def __init__(self, root: Path, fail: Callable[[int], BaseException | None]):
        self.root, self._fail = root.resolve(), fail
        self.count = 0
        self._synced: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Disk":
        opened, os_fsync = io.open, os.fsync
        self._open = opened
        for module in (builtins, io):
            self._stack.enter_context(patch.object(module, "open", self._opened))
        self._stack.enter_context(patch.object(os, "fsync", self._counted_sync(os_fsync)))
        for name in ("replace", "link", "unlink", "mkdir"):
            self._stack.enter_context(patch.object(os, name, self._counted(getattr(os, name))))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def after_power_cut(self, *, names: bool) -> None:
        """Leaves of every file what was synced of it; with names, of every folder, too."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        content = {path: self._synced.get(path.stat().st_ino, b"") for path in files}
        kept: dict[Path, bytes] = {}
        for path in files:
            known = self._names.get(path.parent)
            if not names or known is None or path.name in known:
                kept[path] = content[path]
        if names:  # A rename that wasn't synced gives way to the name that was.
            for folder, known in self._names.items():
                for name, inode in known.items():
                    if folder.is_dir() and inode in self._synced:
                        kept[folder / name] = self._synced[inode]
        for path in files:
            path.unlink()
        for path, data in kept.items():
            path.write_bytes(data)

    def _ours(self, path: Any) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return Path(os.path.abspath(os.fsdecode(path))).is_relative_to(self.root)

    def _tick(self) -> None:
        self.count += 1
        error = self._fail(self.count)
        if error is not None:
            raise error

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *rest: Any, **how: Any) -> Any:
            if self._ours(path):
                self._tick()
            return call(path, *rest, **how)

        return counted

    def _counted_sync(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def counted(descriptor: int) -> None:
            if not self._ours(descriptor):
                return sync(descriptor)
            self._tick()
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_dir():
                files = (p for p in path.iterdir() if p.is_file())
                self._names[path] = {p.name: p.stat().st_ino for p in files}
            else:
                with self._open(f"/proc/self/fd/{descriptor}", "rb") as file:
                    self._synced[os.fstat(descriptor).st_ino] = file.read()
            return sync(descriptor)

        return counted

    def _opened(
        self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **how: Any
    ) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if isinstance(file, int) or not writes or not self._ours(file):
            return self._open(file, mode, buffering, *rest, **how)
        self._tick()
        raw = _File(os.fsdecode(file), mode.replace("b", "").replace("t", ""))
        raw.tick = self._tick
        if "a" not in mode:  # A new file may have the inode of one that is gone.
            self._synced.pop(os.fstat(raw.fileno()).st_ino, None)
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        binary = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return binary if "b" in mode else io.TextIOWrapper(binary, *rest, **how)


class _File(io.FileIO):
    tick: Callable[[], None]

    def write(self, data: Any) -> Any:
        self.tick()
        return super().write(data)


def fails_at(k: int, number: int = errno.EIO) -> Callable[[int], BaseException | None]:
    """The k-th operation fails, and no other."""
    return lambda count: _error(number) if count == k else None


def full_from(k: int) -> Callable[[int], BaseException | None]:
    """The k-th operation and all after it find the disk full."""
    return lambda count: _error(errno.ENOSPC) if count >= k else None


def power_goes_at(k: int) -> Callable[[int], BaseException | None]:
    """The power goes before the k-th operation."""
    return lambda count: PowerCut() if count >= k else None


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
