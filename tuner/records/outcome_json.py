"""How a run ended, as DIR/runs/<run_id>/outcome.json has it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretune.tuner.records.files import known_fields, read_json, write_json
from foretune.tuner.training.outcome import Outcome

OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a trial was worked on, in seconds since 1970; none for what didn't happen."""

    opened: float | None = None
    """A worker began to open its files, model and data."""
    started: float | None = None
    """They were open."""
    ended: float
    """The driver heard of its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The content of `outcome.json`."""

    run_id: str
    outcome: Outcome
    """Its fields lie beside the others in the file."""
    objective: float
    """The finite number that a searcher or scheduler saw."""
    times: Times | None = None
    """Of a trial; none for `foretune train`."""

    @classmethod
    def of(cls, run_id: str, outcome: Outcome, times: Times | None = None) -> "RunEnd":
        """Returns the record of how a run ended."""
        return cls(run_id=run_id, outcome=outcome, objective=outcome.objective, times=times)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON values of the file; a value that isn't finite becomes text."""
        value = self.outcome.value
        if value is not None and not math.isfinite(value):
            value = str(float(value))
        return {
            "run_id": self.run_id,
            **asdict(self.outcome),
            "value": value,
            "objective": self.objective,
            **(asdict(self.times) if self.times else {}),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "RunEnd":
        """Returns the record of the JSON values of a file.

        Unknown keys are passed over; ValueError where some are missing.
        """
        known = known_fields(facts, Outcome, OUTCOME_FILE)
        if known.get("value") is not None:
            known["value"] = float(known["value"])
        outcome = Outcome(**known)
        times = Times(**known_fields(facts, Times, OUTCOME_FILE)) if "ended" in facts else None
        own = {"objective": outcome.objective, **facts, "outcome": outcome, "times": times}
        return cls(**known_fields(own, cls, OUTCOME_FILE))

    @classmethod
    def read(cls, run_dir: Path) -> "RunEnd | None":
        """Returns the record of a run's folder, None before its end; ValueError for a damaged
        file."""
        path = run_dir / OUTCOME_FILE
        return cls.from_json(read_json(path)) if path.exists() else None

    def write(self, run_dir: Path) -> None:
        """Writes outcome.json into the run's folder."""
        write_json(run_dir / OUTCOME_FILE, self.to_json())
