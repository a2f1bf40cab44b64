"""A file is the old one or the new one, whoever ends in between."""

import subprocess
import sys
from pathlib import Path

import pytest

from foretune.whole_files import atomic_write

ROOT = Path(__file__).parents[1]
KILLED = """
import os, signal, sys
from pathlib import Path
from foretune.whole_files import atomic_write
with atomic_write(Path(sys.argv[1]), shared=sys.argv[2] == "shared") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
THEIRS = """
import sys
from pathlib import Path
from foretune.whole_files import atomic_write
with atomic_write(Path(sys.argv[1]), shared=True) as partial:
    partial.write_text("theirs")
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    return path


def names(path):
    return sorted(p.name for p in path.parent.iterdir())


def write_and_fail(path, error):
    with atomic_write(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("shared", [False, True])
def test_the_old_file_stays_until_the_block_ends(path, shared):
    with atomic_write(path, shared=shared) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_beside_it(path, error):
    with pytest.raises(error):
        write_and_fail(path, error)
    assert path.read_text() == "old"
    assert names(path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(path):
    for lasting in (True, False):
        with pytest.raises(FileNotFoundError), atomic_write(path, lasting=lasting):
            pass
    assert path.read_text() == "old"


@pytest.mark.parametrize("shared", ["alone", "shared"])
def test_a_killed_process_leaves_the_old_file_and_hinders_nobody(path, shared):
    command = [sys.executable, "-c", KILLED, str(path), shared]
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    assert path.read_text() == "old"
    (left,) = set(names(path)) - {"a.txt"}
    assert left.endswith(".partial")
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(path) == (["a.txt"] if shared == "alone" else [left, "a.txt"])


def test_two_who_write_at_once_keep_out_of_each_others_file(path):
    with atomic_write(path, shared=True) as mine:
        mine.write_text("mine")
        subprocess.run([sys.executable, "-c", THEIRS, str(path)], cwd=ROOT, check=True)
        assert path.read_text() == "theirs"
    assert path.read_text() == "mine"
    assert names(path) == ["a.txt"]


def test_the_old_file_is_kept_under_its_other_name(path):
    previous = path.with_name("before.txt")
    for text in ("new", "newest"):
        with atomic_write(path, previous=previous) as partial:
            partial.write_text(text)
    assert (path.read_text(), previous.read_text()) == ("newest", "new")
    assert names(path) == ["a.txt", "before.txt"]
