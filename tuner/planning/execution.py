"""How a sweep is run, as opposed to what it runs.

The fields and their checks are apart: a command line reads the fields as they were typed, and
`Execution` checks them. Nothing here needs torch or Ray, so that `--help` answers at once.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

Stopper = Literal["none", "forecast"]


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """Which runs a forecast ends."""

    stopper: Stopper = "none"
    """none, or forecast: ends runs that are forecast to be unstable in the end."""
    false_stops: float = 0.05
    """Share of healthy runs that the forecast may stop: one it is calibrated for."""
    audit: float = 0.05
    """Share of the runs to be stopped that run to their end, to check the forecast."""

    def check_forecast(self) -> None:
        """Raises ValueError for a stopper that isn't there, and for shares that none uses."""
        known = get_args(Stopper)
        if self.stopper not in known:
            raise ValueError(f"stopper must be one of {', '.join(known)}, got {self.stopper!r}.")
        check_share("audit", self.audit)
        unused = Stopping(false_stops=self.false_stops, audit=self.audit)
        if self.stopper == "none" and unused != Stopping():
            raise ValueError(
                "false_stops and audit must go with a stopper, got none; set stopper=forecast."
            )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a sweep runs on, and where MLflow keeps it."""

    max_concurrent: int = 0
    """Trials at once; 0 means as many as fit."""
    cpus_per_trial: float = 1.0
    """CPUs, and threads, of a trial."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; 0 trains on the CPU."""
    address: str = ""
    """Ray cluster to join, auto or HOST:PORT; empty starts one on this machine."""
    tracking_uri: str = ""
    """MLflow store; empty is MLFLOW_TRACKING_URI, else mlflow.db in the sweep's directory.
    A password is better given there, or as MLFLOW_TRACKING_PASSWORD, than typed here."""


@dataclass(frozen=True, kw_only=True)
class ExecutionFields(Stopping, Resources):
    """How a sweep runs."""

    scheduler: Annotated[str, arg(metavar="{none,asha,median,pbt}")] = "none"
    """none runs every trial to its end; asha stops the worse ones of each size early;
    median those that are worse than the median of their size; pbt is refused."""
    grace_steps: int = 0
    """Updates before a scheduler may stop a trial; 0 means the first validation after step 0."""
    reduction_factor: float = 2.0
    """asha keeps one in this many at each rung."""
    skip_above: float = 1.0
    """Probability of instability above which a trial isn't started; 1 starts all.
    optuna draws another in its place."""
    skip_from: str = ""
    """Directory of an ended sweep, whose law across sizes gives that probability."""
    checkpoint_seconds: float = 10.0
    """Least seconds between a trial's checkpoints."""
    trial_timeout: float = 0.0
    """Seconds in which a trial must go on (finish an update or open its data), else it is
    ended as failed; 0 waits for ever."""
    stall_timeout: float = 600.0
    """Seconds without progress and without a node that could host a trial, after which the sweep
    ends; resume goes on."""
    keep_models: bool = False
    """Keep the final weights of finished runs, for `foretune export`;
    costs 4 bytes a parameter and run."""
    experiment: str = ""
    """MLflow experiment; empty is MLFLOW_EXPERIMENT_NAME, else foretune."""


@dataclass(frozen=True, kw_only=True)
class Execution(ExecutionFields):
    """How a sweep runs; nothing here changes a number of any run, only how far it gets.

    Raises ValueError for what can't be.
    """

    def __post_init__(self) -> None:
        from foretune.tuner.tracking.stores import check_tracking_uri

        if not 0 < self.cpus_per_trial < math.inf:
            raise ValueError(f"cpus_per_trial must be above 0, got {self.cpus_per_trial:g}.")
        for name in (
            "gpus_per_trial",
            "max_concurrent",
            "checkpoint_seconds",
            "grace_steps",
            "trial_timeout",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name):g}.")
        if not 0 < self.stall_timeout < math.inf:
            raise ValueError(f"stall_timeout must be above 0, got {self.stall_timeout:g}.")
        self.check_forecast()
        self._check_skips()
        check_tracking_uri(self.tracking_uri)

    def with_store(self) -> "Execution":
        """Returns how a new sweep runs: with the store and experiment that MLflow's own variables
        name, where none is named here."""
        return replace(
            self,
            tracking_uri=self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", ""),
            experiment=self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "foretune",
        )

    def _check_skips(self) -> None:
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


def recorded_execution(facts: Mapping[str, Any]) -> Execution:
    """Returns the execution that `sweep.json` says; keys of other versions are passed over.

    Raises ValueError for what can't be.
    """
    from foretune.tuner.records.files import known_fields
    from foretune.tuner.records.sweep_json import SWEEP_FILE

    return Execution(**known_fields(facts, Execution, f"execution in {SWEEP_FILE}"))
