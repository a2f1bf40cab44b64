"""Runs a command that on Linux ends as soon as its parent does, whatever ends that.

A program of its own, which loads nothing beyond the standard library. Ray's agent for runtime
environments notices by itself that its raylet was killed, but lives on for 61 s (measured) to tell
a head that is gone as well.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Becomes the command; what is asked of the kernel here stays over that."""
    if sys.platform == "linux":  # Elsewhere the command notices by itself, later.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["RAY_RAYLET_PID"]):  # Gone before it could be asked for.
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
