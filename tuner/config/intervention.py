"""What an intervention says of itself; `tuner.config.interventions` has those that there are."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run

Stage = Literal["start", "forward", "gradient", "update", "later"]
"""The weights at the start, the forward pass, the gradient, the first update, or a later one."""


@dataclass(frozen=True, slots=True)
class Own:
    """The value of a field in the run without the intervention."""

    path: str


@dataclass(frozen=True, slots=True)
class Intervention:
    """A named change of a run, meant to alter stability: Run -> Run.

    The mechanism is a typed field where it acts (the model, the optimizer, the loss, the schedule,
    the parametrisation); an intervention only names a setting of it.
    """

    about: str
    """One sentence on what it does, for `foretune list interventions`."""
    _: KW_ONLY
    sets: Mapping[str, Any] | Callable[[Run], Mapping[str, Any]]
    """{dotted field: value}, or a function of the run that returns them and whose docstring says
    them in a few words."""
    acts: Stage
    """Where a run with it first differs from one without."""
    source: str = ""
    """Who proposed it, and when; or a section of source A."""
    zero: Mapping[str, Any] | None = None
    """{dotted field: value or `Own`} with which it changes nothing; None where it has no strength:
    it is on or off."""
    provoked: Mapping[str, Any] = field(default_factory=dict)
    """{dotted field: value} with which it acts in any run; for what acts on the unusual alone."""

    def __call__(self, run: Run) -> Run:
        """Returns the run with its fields set; ValueError where they don't fit the run."""
        return override(run, self.sets(run) if callable(self.sets) else self.sets)
