"""Failed runs that are tried again."""

from contextlib import suppress
from itertools import count
from pathlib import Path

from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd
from foretune.tuner.sweeps.last_words import ERROR_FILE
from foretune.tuner.sweeps.micro_batch import MEMORY_FILE


def reopen_failed(directory: Path) -> list[str]:
    """Takes the outcome of every failed run of a sweep; returns their ids.

    They go on from their checkpoints, by their own micro-batch again. The text of each error stays,
    as error.1.txt and so on.
    """
    reopened = []
    for outcome in sorted((directory / "runs").glob(f"*/{OUTCOME_FILE}")):
        with suppress(ValueError):  # A damaged one is somebody else's to judge.
            end = RunEnd.read(outcome.parent)
            if end is not None and end.outcome.outcome == "failed":
                _keep_text(outcome.parent / ERROR_FILE)
                (outcome.parent / MEMORY_FILE).unlink(missing_ok=True)
                outcome.unlink()
                reopened.append(outcome.parent.name)
    return reopened


def _keep_text(error: Path) -> None:
    if error.exists():
        names = (error.with_name(f"error.{n}.txt") for n in count(1))
        error.rename(next(name for name in names if not name.exists()))
