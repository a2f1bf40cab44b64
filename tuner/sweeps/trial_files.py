"""The trials of a sweep as its workers look them up: by run id, in the sweep's directory.

A worker may be asked for a run that was drawn after it began, so it is given no list of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretune.tuner.planning.forecast_stop import ForecastStop
from foretune.tuner.records.files import read_json
from foretune.tuner.records.run_json import from_config
from foretune.tuner.sweeps.trainable import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFiles:
    """What all trials of a sweep share, and where their runs are; see `Trial`."""

    runs_dir: str
    threads: int
    gpus: float
    checkpoint_seconds: float
    keep_models: bool
    stop: ForecastStop | None

    def __getitem__(self, run_id: str) -> Trial:
        facts = read_json(Path(self.runs_dir) / run_id / "run.json")
        return self.trial({**facts, "run": from_config(facts["config"])})

    def trial(self, facts: Mapping[str, Any]) -> Trial:
        """Returns the trial of a run.json with its `run`."""
        return Trial(
            run_id=facts["run_id"],
            run=facts["run"],
            size=facts["size"],
            directory=str(Path(self.runs_dir) / facts["run_id"]),
            threads=self.threads,
            gpus=self.gpus,
            checkpoint_seconds=self.checkpoint_seconds,
            keep_models=self.keep_models,
            stop=self.stop,
            data_sha256=facts["data_sha256"],
        )
