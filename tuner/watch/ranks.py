"""One run in several processes: the first one writes, and all get the same verdict."""

from torch import distributed

from foretune.tuner.watch.step_verdict import StepVerdict


def is_first() -> bool:
    """Whether this process writes the records: alone, or of rank 0."""
    return not _several() or distributed.get_rank() == 0


def agreed(verdict: StepVerdict, before: StepVerdict, *, now: bool) -> StepVerdict:
    """Returns the verdict of rank 0, or one to stop where any process has one.

    All processes ask at the same steps, or they would wait for each other: now says that this is
    one of them, and until then the verdict stays as it was.
    """
    if not _several():
        return verdict
    if not now:
        return before
    held: list[StepVerdict | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(held, verdict)
    known = [one for one in held if one is not None]
    return next((one for one in known if one.stop), known[0])


def _several() -> bool:
    available = distributed.is_available() and distributed.is_initialized()
    return available and distributed.get_world_size() > 1
