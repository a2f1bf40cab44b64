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

    As text it names them as Python does.
    """

    def __str__(self) -> str:
        return "".join(self.args)

    def spelled(self, flag: Callable[[str], str]) -> str:
        """Returns the sentence with each argument named by its flag."""
        return "".join(flag(part) if isinstance(part, Argument) else part for part in self.args)


@contextmanager
def flags(flag: Callable[[str], str]) -> Iterator[None]:
    """Within its block `spelled` gives an argument's flag: what a command line runs in."""
    before = _flag.set(flag)
    try:
        yield
    finally:
        _flag.reset(before)


def spelled(argument: str) -> str:
    """Returns an argument's name for a printed note: as Python has it, or its flag in `flags`."""
    return _flag.get()(argument)
