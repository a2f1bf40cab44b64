"""What a watched run is told after each update."""

import math
from dataclasses import dataclass

from foretune.analysis.stats.status import Status


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """Whether a run should end, and why."""

    stop: bool
    """True where the run has diverged, or is forecast to end unstable."""
    probability: float = math.nan
    """That it ends unstable, in 0..1; NaN where the forecast can't tell."""
    reason: str = ""
    """A sentence where `stop` is true; else what the forecast rests on, or nothing."""
    status: Status = Status.ok()  # noqa: RUF009 - text, so as immutable as any
    """`ok`, or `cannot tell: ` and why."""
