"""Arguments in refusals and in printed notes: Python and a command line name them differently."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_flag: ContextVar[Callable[[str], str]] = ContextVar("flag", default=str)


class Argument(str):
    """The name of an argument as Python has it, like num_samples."""

    __slots__ = ()


class ArgumentError(ValueError):
    """What is wrong with arguments: the parts of a sentence, of which the names are `Argument`s.

    As text it names them as Python does, or as flags within the block of `flags`.
    """

    def __str__(self) -> str:
        return "".join(spelled(part) if isinstance(part, Argument) else part for part in self.args)


@contextmanager
def flags(flag: Callable[[str], str]) -> Iterator[None]:
    """Within its block arguments are named by their flags: what a command line runs in."""
    before = _flag.set(flag)
    try:
        yield
    finally:
        _flag.reset(before)


def spelled(argument: str) -> str:
    """Returns an argument's name for a printed note: as Python has it, or its flag in `flags`."""
    return _flag.get()(argument)
