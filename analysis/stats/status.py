"""How far a result can be trusted: one of three words, and the reason."""

from enum import StrEnum
from typing import Final, Self

CANNOT_TELL: Final = "cannot tell"


class Trust(StrEnum):
    """The words that a status begins with."""

    OK = "ok"
    CAUTION = "caution"
    CANNOT_TELL = CANNOT_TELL


class Status(str):
    """A word of `Trust`, and where there is a reason a colon and the reason.

    It is text, so that files, tables and JSON hold it as it reads; text that was read from one of
    them becomes a status again by `Status(text)`. ValueError for any other word.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if text.partition(": ")[0] not in tuple(Trust):
            raise ValueError(
                f"a status must be one of {', '.join(Trust)}, or one of them with a colon and a "
                f"reason, got {text!r}; 'cannot tell: no run has ended' is an example."
            )
        return super().__new__(cls, text)

    @classmethod
    def ok(cls, reason: str = "") -> Self:
        """Returns the status of a result that stands, and what it rests on."""
        return cls._of(Trust.OK, reason)

    @classmethod
    def caution(cls, reason: str) -> Self:
        """Returns the status of a result that is given, but beyond what was checked."""
        return cls._of(Trust.CAUTION, reason)

    @classmethod
    def cannot_tell(cls, reason: str) -> Self:
        """Returns the status of a result that says nothing, and why."""
        return cls._of(Trust.CANNOT_TELL, reason)

    @classmethod
    def _of(cls, trust: Trust, reason: str) -> Self:
        return cls(f"{trust}: {reason}" if reason else trust.value)

    @property
    def trust(self) -> Trust:
        """The word."""
        return Trust(self.partition(": ")[0])

    @property
    def reason(self) -> str:
        """What follows the word; empty where nothing does."""
        return self.partition(": ")[2]

    @property
    def is_ok(self) -> bool:
        """Whether the result stands without a caution."""
        return self.trust is Trust.OK

    @property
    def can_tell(self) -> bool:
        """Whether there is a result."""
        return self.trust is not Trust.CANNOT_TELL
