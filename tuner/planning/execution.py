"""How a sweep is run, as opposed to what it runs."""

import math
from dataclasses import dataclass

from foretune.tuner.tracking.sender import check_tracking_uri

STOPPERS = ("none", "forecast")
FALSE_STOPS, AUDIT = 0.05, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a sweep runs; nothing here changes a number of any run, only how far it gets."""

    scheduler: str = "none"
    """none, asha or median."""
    grace_steps: int = 0
    """Updates before a scheduler may stop a trial; 0 means the first validation after step 0."""
    reduction_factor: float = 2.0
    """asha keeps one in this many at each rung."""
    stopper: str = "none"
    """none, or forecast: ends trials that are forecast to be unstable in the end."""
    false_stops: float = FALSE_STOPS
    """Share of healthy trials that the forecast may stop."""
    audit: float = AUDIT
    """Share of the trials to be stopped that run to their end, to check the forecast."""
    skip_above: float = 1.0
    """Probability of instability above which a trial isn't started; 1 starts all."""
    skip_from: str = ""
    """Directory of the ended sweep whose law across sizes gives that probability."""
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
        self._check_forecasts()
        check_tracking_uri(self.tracking_uri)

    def _check_forecasts(self) -> None:
        if self.stopper not in STOPPERS:
            raise ValueError(f"stopper must be one of {', '.join(STOPPERS)}, got {self.stopper!r}.")
        check_share("audit", self.audit)
        if self.stopper == "none" and (self.false_stops, self.audit) != (FALSE_STOPS, AUDIT):
            raise ValueError(
                "false_stops and audit must go with a stopper, got none; set stopper=forecast."
            )
        if not 0 < self.skip_above <= 1:
            raise ValueError(
                f"skip_above must be a probability above 0 and up to 1, got {self.skip_above:g}."
            )
        if (self.skip_above < 1) != bool(self.skip_from):
            raise ValueError(
                f"skip_above and skip_from must be given together, got {self.skip_above:g} and "
                f"{self.skip_from!r}; skip_from is the directory of an ended sweep."
            )


def check_share(name: str, share: float) -> None:
    """Raises ValueError for what isn't a share of runs."""
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1, got {share:g}.")
