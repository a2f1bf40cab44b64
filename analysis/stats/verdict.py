"""What data say of a claim: that it holds, that it does not, or nothing."""

from enum import StrEnum
from typing import Self, TypeVar

from foretune.analysis.stats.status import Trust

T = TypeVar("T")


class Verdict(StrEnum):
    """Whether the data bear a claim out; prints as a page has it."""

    HOLDS = "holds"
    FAILS = "does not hold"
    CANNOT_TELL = Trust.CANNOT_TELL.value

    @classmethod
    def of(cls, holds: bool, fails: bool) -> Self:
        """Returns the verdict of two tests that exclude each other; neither cannot tell."""
        return cls(cls.HOLDS if holds else cls.FAILS if fails else cls.CANNOT_TELL)

    @classmethod
    def from_column(cls, text: str) -> Self:
        """Returns the verdict that a CSV file has in the column `holds`; KeyError for others."""
        known = {"" if each.column is None else str(each.column): each for each in cls}
        return known[text]

    def choose(self, holds: T, fails: T, cannot_tell: T) -> T:
        """Returns what belongs to this verdict."""
        return {Verdict.HOLDS: holds, Verdict.FAILS: fails}.get(self, cannot_tell)

    @property
    def column(self) -> bool | None:
        """As tables have it, in the column `holds`; None is an empty cell."""
        return self.choose(True, False, None)

    @property
    def here(self) -> str:
        """What begins the sentence that holds these runs against a source's finding."""
        return self.choose("Here too", "Not here", "Can't be told here")

    @property
    def at_this_scale(self) -> str:
        """As `foretune reproduce` says it: larger runs may tell what these can't."""
        return self.choose(str(Verdict.HOLDS), str(Verdict.FAILS), "can't tell at this scale")
