"""A disk that fails at every write, sync, rename and open of a sweep in turn, and then works again.

After each the sweep goes on to the same numbers, to the bit.
"""

import errno
import os
import shutil
from contextlib import suppress

import disk
import pytest
import sweep_by_hand as by_hand

from foretune.tuner.records import storage

KINDS = {
    "the disk is full from there on": disk.full_from,
    "one operation fails": disk.fails_at,
    "a file system turns read-only": lambda k: disk.fails_at(k, errno.EROFS),
    "the power goes, with what wasn't synced": disk.power_goes_at,
    "the power goes, with names that weren't synced": disk.power_goes_at,
}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    """The worker's own waiting for a storage to come back has a test of its own."""
    monkeypatch.setattr(storage, "PATIENCE_S", 0.0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text):
    """The numbers of the sweep, and how many operations it makes."""
    directory = tmp_path_factory.mktemp("undisturbed") / "s"
    with disk.Disk(directory, lambda k: None) as counted:
        by_hand.run_sweep(directory, text)
    return by_hand.numbers(directory), counted.count


def fail_and_go_on(directory, text, kind, k):
    """Returns the numbers of a sweep that was disturbed at its k-th operation."""
    shutil.rmtree(directory, ignore_errors=True)
    failing = disk.Disk(directory, KINDS[kind](k))
    with failing, suppress(OSError, by_hand.Unfinished, disk.PowerCut):
        by_hand.run_sweep(directory, text)
    if "power" in kind:
        failing.after_power_cut(names="names" in kind)
    by_hand.run_sweep(directory, text)
    return by_hand.numbers(directory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [61, pytest.param(11, marks=pytest.mark.slow)])
def test_a_sweep_outlives_a_disk_that_fails(undisturbed, text, tmp_path, kind, every):
    """At each place in `make faults`, and here at some, of each kind at others."""
    numbers, count = undisturbed
    for k in range(1 + sorted(KINDS).index(kind) * every // len(KINDS), count + 1, every):
        assert fail_and_go_on(tmp_path / "s", text, kind, k) == numbers, k


def test_the_disk_of_these_tests_does_fail(tmp_path):
    """And forgets what wasn't synced."""
    path, kept = tmp_path / "a", tmp_path / "kept"
    with disk.Disk(tmp_path, disk.full_from(2)), pytest.raises(OSError, match="No space left"):
        path.write_text("never")
    assert path.read_text() == ""
    with disk.Disk(tmp_path, lambda k: None) as watched:
        path.write_text("not synced")
        with kept.open("w") as file:
            file.write("synced")
            file.flush()
            os.fsync(file.fileno())
            file.write(" and not")
    watched.after_power_cut(names=False)
    assert (path.read_text(), kept.read_text()) == ("", "synced")
