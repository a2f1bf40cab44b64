"""The table: every fault, how often it is tried, and what is done."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

import damage
import drivers
import machines
import own_models
import servers
import storage
from place import Place, References


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A row of the table."""

    name: str
    group: str
    run: Callable[[Place], None]
    times: int = 1
    """How often it is tried; more than once where its moment or place is random."""
    places: Callable[[References], int] | None = None
    """Instead, the number of places at each of which it is tried once."""

    def tries(self, references: References, times: int | None = None) -> int:
        """Returns how often it is tried; times is for those that are random."""
        if self.places:
            return self.places(references)
        return times if times and self.times > 1 else self.times


FAULTS = (
    Fault(name="kill a worker, twice", group="nodes", run=machines.worker),
    Fault(name="kill a node", group="nodes", run=machines.node),
    Fault(name="kill the last node", group="nodes", run=machines.last_node),
    Fault(name="kill the raylet of a local sweep", group="nodes", run=machines.raylet),
    *(
        Fault(name=f"kill -9 the driver, {kind}", group="driver", run=drivers.kill(kind), times=7)
        for kind in ("grid", "asha", "optuna")
    ),
    *(
        Fault(name=f"{n.name} {moment}", group="signals", run=drivers.interrupt(n, moment))
        for n in (signal.SIGINT, signal.SIGTERM)
        for moment in (drivers.START, drivers.TRAINING, drivers.CLOSING)
    ),
    Fault(name="a full disk, then space", group="disk", run=storage.full, times=2),
    *(
        Fault(
            name=f"disk: {kind}", group="disk", run=storage.fails(kind), places=storage.operations
        )
        for kind in storage.KINDS
    ),
    *(
        Fault(name=f"damaged {name}", group="damage", run=damage.damaged(choose), times=4)
        for name, choose in damage.FILES.items()
    ),
    Fault(name="MLflow's server stopped", group="mlflow", run=servers.away(comes_back=False)),
    Fault(name="MLflow's server restarted", group="mlflow", run=servers.away(comes_back=True)),
    Fault(name="MLflow's server slow", group="mlflow", run=servers.slow),
    Fault(name="MLflow's server without authorisation", group="mlflow", run=servers.unauthorised),
    *(
        Fault(name=f"a model with {kind}", group="model", run=own_models.failing(kind))
        for kind in own_models.REASONS
    ),
    Fault(name="a clock that jumps an hour", group="clock", run=machines.clock_jumps),
)
