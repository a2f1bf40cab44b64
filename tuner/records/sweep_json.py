"""What a sweep runs and how, as DIR/sweep.json has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from foretune.analysis.records.checksum import check_unchanged, has_changed
from foretune.tuner.records.files import known_fields, read_json, write_record
from foretune.tuner.records.run_json import FORMAT

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecord:
    """The content of `sweep.json`."""

    command: str = ""
    """The command line, or the call."""
    created: str = ""
    """When, by its driver's clock."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """`Plan.describe`: its keys lie beside the others in the file."""
    draws: Mapping[str, Any] | None = None
    """`OpenPlan.to_json`, for `resume` to draw from; none where the runs are listed."""
    scheduler: str = "none"
    execution: Mapping[str, Any]
    """Fields of `Execution`, the tracking URI without its password."""
    versions: Mapping[str, str]
    """Of Python and the packages that numbers depend on."""
    commit: str = "unknown"
    machine: Mapping[str, Any]
    trials: int
    """How many were asked for."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON values of the file; what is none isn't written."""
        facts: dict[str, Any] = {"format": FORMAT}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "plan":
                facts |= value
            elif value is not None:
                facts[f.name] = value
        return facts

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "SweepRecord":
        """Returns the record of the JSON values of a file; ValueError where some are missing.

        Unknown keys are kept among those of the plan, so that `to_json` loses none.
        """
        own = {f.name for f in fields(cls)} | {"format"}
        plan = {key: value for key, value in facts.items() if key not in own}
        return cls(**{**known_fields(facts, cls, SWEEP_FILE), "plan": plan})

    @classmethod
    def read(cls, directory: Path) -> "SweepRecord":
        """Returns the record of a sweep's directory; ValueError where there is none."""
        path = directory / SWEEP_FILE
        if not path.is_file():
            raise ValueError(f"DIR must hold a sweep, got {directory} without {SWEEP_FILE}.")
        return cls.from_json(read_json(path))

    def write(self, directory: Path) -> None:
        """Writes sweep.json into the sweep's directory."""
        write_record(directory / SWEEP_FILE, self.to_json())


def change_of(directory: Path) -> str:
    """Returns a sentence where sweep.json has changed since it was written, else nothing.

    Raises ValueError where runs are drawn by it: others would be drawn.
    """
    path = directory / SWEEP_FILE
    if not has_changed(path):
        return ""
    if SweepRecord.read(directory).draws is not None:
        check_unchanged(path)
    return f"{path} has changed since foretune wrote it; the sweep goes on with what it says now."
