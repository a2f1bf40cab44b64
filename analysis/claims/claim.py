"""A sentence with a verdict."""

from dataclasses import dataclass
from typing import Any, Final

from foretune.analysis.stats.verdict import Verdict

LOSS_SEED_SD: Final = 0.04
"""Standard deviation of one final loss between seeds, nats: 0.004 to 0.09, root mean square 0.04,
over three seeds of the byte language model at widths 16 to 64 and five learning rates."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, and whether the data bear it out."""

    name: str
    sentence: str
    verdict: Verdict
    numbers: dict[str, float]

    def row(self) -> dict[str, Any]:
        """As a table has it: the verdict is the column `holds`, empty where it cannot tell."""
        return {
            "name": self.name,
            "sentence": self.sentence,
            "holds": self.verdict.column,
            "numbers": self.numbers,
        }
