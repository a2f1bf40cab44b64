"""A refusal of arguments, which Python and a command line name differently."""

from collections.abc import Callable


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
