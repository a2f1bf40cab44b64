"""The trials of a sweep as its workers look them up: by run id, in the sweep's directory.

A worker may be asked for a run that was drawn after it began, so it is given no list of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from foretune.tuner.config.kept_secrets import keep
from foretune.tuner.planning.forecast_stop import ForecastStop
from foretune.tuner.records.run_json import RunRecord
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
    models: Mapping[str, type]
    """Classes of users' models by kind: what the driver has loaded, and no worker else imports."""
    secrets: Mapping[str, str] = field(repr=False)
    """Of the runs, by class and field: in no file, so that the driver hands them over."""
    timeout_s: float = 0.0

    def __getitem__(self, run_id: str) -> Trial:
        keep(self.secrets)
        return self.trial(RunRecord.read(Path(self.runs_dir) / run_id, self.models))

    def trial(self, record: RunRecord) -> Trial:
        """Returns the trial of a run."""
        return Trial(
            run_id=record.run_id,
            run=record.run,
            size=record.size,
            directory=str(Path(self.runs_dir) / record.run_id),
            threads=self.threads,
            gpus=self.gpus,
            checkpoint_seconds=self.checkpoint_seconds,
            keep_models=self.keep_models,
            stop=self.stop,
            timeout_s=self.timeout_s,
            data_sha256=record.data_sha256,
        )
