"""What a process has started, and what that has."""

import contextlib
import os
import signal
from pathlib import Path


def below(pid: int) -> set[int]:
    """Returns every process below one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def kill_below(pid: int) -> None:
    """Kills every process below one."""
    for one in below(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
