"""Takes the place of Ray's dashboard agent on a local cluster, where nobody reads that.

Ray 2.60's raylet refuses to start without one, so this is a program of its own, which loads neither
Ray nor anything beyond the standard library. It says that the agent's three ports are not in use,
by the files in which an agent says where it listens, and ends with the raylet.
"""

import os
import sys
from pathlib import Path

UNUSED = "-1"
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")


def main(arguments: list[str]) -> None:
    """Runs with the arguments of the agent that it stands for."""
    (session,) = (a.partition("=")[2] for a in arguments if a.startswith("--session-dir="))
    for port in PORTS:
        file = Path(session) / f"{port}_{os.environ['RAY_NODE_ID']}"
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(UNUSED)
        partial.replace(file)
    while os.read(sys.stdin.fileno(), 1):  # The raylet holds the other end, and writes nothing.
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
