"""How a sweep is run, as opposed to what it runs."""

import math
from dataclasses import dataclass

from tuner.mlflow_tracker import check_tracking_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a sweep runs; nothing here changes a number of any run."""

    scheduler: str = "none"
    """none or asha."""
    grace_steps: int = 0
    """Updates before asha may stop a trial; 0 means the first validation after step 0."""
    reduction_factor: float = 2.0
    """asha keeps one in this many at each rung."""
    max_concurrent: int = 0
    """Trials at once; 0 means as many as fit."""
    cpus_per_trial: float = 1.0
    """CPUs, and threads, of a trial."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; 0 trains on the CPU."""
    checkpoint_seconds: float = 10.0
    """Least time between a trial's checkpoints, in seconds."""
    keep_models: bool = False
    """Keep the final weights of finished runs, to export them: 4 bytes a parameter and run."""
    address: str = ""
    """Ray cluster: auto or HOST:PORT; empty starts one on this machine."""
    tracking_uri: str = ""
    """MLflow store; empty is mlflow.db in the sweep's directory."""
    experiment: str = "foretune"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        if not 0 < self.cpus_per_trial < math.inf:
            raise ValueError(f"cpus_per_trial must be above 0, got {self.cpus_per_trial:g}.")
        for name in ("gpus_per_trial", "max_concurrent", "checkpoint_seconds", "grace_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name):g}.")
        check_tracking_uri(self.tracking_uri)
