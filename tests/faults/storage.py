"""Disks that are full, and disks that fail at each operation in turn."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from unittest.mock import patch

import disk
import sweep_by_hand as by_hand
from place import Lost, Place, References
from sweeps import begin
from test_disk import KINDS, fail_and_go_on

from foretune.tuner.records import storage as product_storage

MIB = 1 << 20


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system in memory at a folder, which needs root."""
    folder.mkdir()
    how = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    ended = subprocess.run(how, capture_output=True, text=True)
    if ended.returncode:
        raise Lost(f"not tried: {ended.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def full(place: Place) -> None:
    """The sweep's disk is filled by somebody else while it trains, and then there is space."""
    mount = place.folder / "disk"
    with small_disk(mount, 64 * MIB):
        place.out = mount / "sweep"
        sweep = begin(place)
        place.in_training(sweep, place.random.uniform(0.1, 0.7))
        fill(mount / "hog")
        output = place.finish(sweep, (3,))
        if "No space left on device" not in output or "foretune resume" not in output:
            raise Lost(f"it isn't said: {output[-400:]}")
        place.check_left()
        (mount / "hog").unlink()
        place.resume()
        shutil.copytree(place.out, place.folder / "sweep")  # For the checks, after the unmount.
    place.out = place.folder / "sweep"


def fill(path: Path) -> None:
    """Takes all the space that a disk has."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(MIB // 64)):
            pass


@cache
def undisturbed(references: References) -> tuple[dict[str, tuple[str, str]], int]:
    """The numbers of the sweep by hand, and how many operations it makes."""
    directory = references.folder / "by hand"
    with disk.Disk(directory, lambda k: None) as counted:
        by_hand.run_sweep(directory, references.text)
    return by_hand.numbers(directory), counted.count


def operations(references: References) -> int:
    return undisturbed(references)[1]


def fails(kind: str) -> Callable[[Place], None]:
    """The disk of a sweep in this process fails at operation `number` + 1."""
    assert kind in KINDS

    def run(place: Place) -> None:
        numbers, _ = undisturbed(place.references)
        k = place.number + 1
        place.moment = f"operation {k}"
        with patch.object(product_storage, "PATIENCE_S", 0.0):
            if fail_and_go_on(place.out, place.text, kind, k) != numbers:
                raise Lost("other numbers")

    return run
