"""`foretune submit`: a command as a Ray job."""

from collections.abc import Callable
from pathlib import Path


def submission(command: list[str]) -> Callable[..., int]:
    """Returns the command that submits what was written after `--`."""

    def submit(*, address: str = "") -> int:
        """Runs a foretune command as a Ray job: foretune submit [--address URL] -- COMMAND.

        Its output is streamed, its exit code is passed on, Ctrl-C stops it. The checkout in the
        current directory is shipped with it.

        Args:
            address: the head's dashboard, http://HOST:PORT; empty is http://127.0.0.1:8265.
        """
        from foretune.tuner.cluster.jobs import submit as submit_job

        if not command:
            raise ValueError(
                "submit must be given a command, got none; write it after --, like "
                "foretune submit -- sweep lr --out DIR."
            )
        return submit_job(command, address=address, working_dir=Path.cwd())

    return submit
