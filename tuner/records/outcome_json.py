"""How a run ended, as DIR/runs/<run_id>/outcome.json has it."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretune.tuner.records.files import known_fields, read_json, write_record
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
    rows: Mapping[str, Any] | None = None
    """How many rows of `metrics.jsonl` it speaks of, and their checksum; none in older files."""

    @classmethod
    def of(
        cls,
        run_id: str,
        outcome: Outcome,
        times: Times | None = None,
        rows: Mapping[str, Any] | None = None,
    ) -> "RunEnd":
        """Returns the record of how a run ended; rows is what `MetricsFile` says of its own."""
        return cls(
            run_id=run_id, outcome=outcome, objective=outcome.objective, times=times, rows=rows
        )

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
            **({"rows": dict(self.rows)} if self.rows is not None else {}),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "RunEnd":
        """Returns the record of the JSON values of a file.

        Unknown keys are passed over; ValueError where some are missing.
        """
        facts = {**facts, "value": _number(facts.get("value"))}
        outcome = Outcome(**known_fields(facts, Outcome, OUTCOME_FILE))
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
        write_record(run_dir / OUTCOME_FILE, self.to_json())


def _number(value: Any) -> Any:
    """The number of a text like nan; anything else is for the rules of its field."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value
