"""From a search space to the list of runs it means, checked before anything starts."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from itertools import product
from typing import Any, get_args

import numpy as np
from ray.tune.search.sample import Categorical, Domain

from foretune.argument_error import Argument, ArgumentError
from foretune.models.nets.ladder import check_rungs
from foretune.tuner.config.inert import check_effective, without_inert
from foretune.tuner.config.resolve import SPACE, resolve_draw
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import open_stream
from foretune.tuner.planning.sampling import Sampling, Search
from foretune.tuner.planning.spaces import (
    DEFAULT_PRESET,
    Part,
    Space,
    describe_space,
    parts_of,
    shown_value,
)
from foretune.tuner.records.run_json import run_id


@dataclass(frozen=True, slots=True)
class Plan(Sampling):
    """What a sweep runs: a space, and how runs are drawn from it and completed."""

    space: Space
    """{dotted field: Ray Tune domain, grid, or a fixed value}, or a list of such parts."""
    _: KW_ONLY
    name: str = "own"
    """The space's name, for the record."""
    preset: str | Run = DEFAULT_PRESET
    """What the space's fields are changed in: a name, FILE.py:NAME, or a run."""
    interventions: tuple[str, ...] = ()
    """Named changes to every run, from left to right."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """{dotted field: value} of every run; wins over the space."""
    grids: tuple[str, ...] = ()
    """Fields that grids of a command line have put into the space, for messages."""

    def __post_init__(self) -> None:
        known = get_args(Search)
        if self.search not in known:
            raise ValueError(f"search must be one of {', '.join(known)}, got {self.search!r}.")
        for name in ("num_samples", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if self.search == "optuna" and self.seeds > 1:
            raise ArgumentError(
                f"seeds must be 1 for search=optuna, got {self.seeds}; put seeds into the space "
                f"with ",
                Argument("grids"),
                " seed=0,1,2, or run another sweep with ",
                Argument("seed"),
                ".",
            )

        if self.seeds > 1 and "seed" in {*self.overrides, *self.grids}:
            raise ArgumentError(
                Argument("seeds"),
                " must be 1 where seed is set by ",
                Argument("overrides"),
                " or ",
                Argument("grids"),
                f", which would undo it, got {self.seeds}; leave one of them out.",
            )

    def runs(self, *, check_data: bool = True) -> list[Run]:
        """Returns every run of a grid or random search, resolved and checked, without repetitions.

        Raises ValueError for what can't run, before anything does. Without check_data no data is
        opened: for counting what runs cost where their data isn't.
        """
        rng = np.random.RandomState(self.seed)
        grid, parts = self.search == "grid", parts_of(self.space)
        draws = [draw for part in parts for draw in (_grid(part) if grid else [dict(part)])]
        resolved: list[tuple[set[str], Run]] = []
        for draw in [d for d in draws for _ in range(self.num_samples)]:
            chosen = {path: _draw(path, domain, rng) for path, domain in draw.items()}
            for offset in range(self.seeds):
                resolved.append(self.complete(chosen, seed=self.seed + offset))
        check_effective(resolved)
        check_rungs(run.model for _, run in resolved)
        runs = {run_id(run): run for run in (without_inert(run) for _, run in resolved)}
        if check_data:
            check_streams(runs.values())
        return list(runs.values())

    def complete(self, chosen: Mapping[str, Any], *, seed: int) -> tuple[set[str], Run]:
        """Returns the paths that the values of the space's fields ask for, and their run.

        Inert settings are left in. Raises ValueError for what can't run.
        """
        changes = {"seed": seed, **chosen, **self.overrides}
        origin = {p: "grids" if p in self.grids else SPACE for p in chosen}
        return resolve_draw(
            self.preset,
            interventions=self.interventions,
            overrides=changes,
            origin={p: place for p, place in origin.items() if p not in self.overrides},
        )

    def describe(self) -> dict[str, Any]:
        """Returns the plan as JSON values for `sweep.json`."""
        return {
            "space_name": self.name,
            "space": [describe_space(part) for part in parts_of(self.space)],
            "preset": self.preset if isinstance(self.preset, str) else "own",
            "search": self.search,
            "num_samples": self.num_samples,
            "seeds": self.seeds,
            "seed": self.seed,
            "interventions": list(self.interventions),
            "overrides": {path: shown_value(path, value) for path, value in self.overrides.items()},
        }


def check_streams(runs: Iterable[Run]) -> None:
    """Opens the data of all runs; ValueError where some can't give a batch."""
    for data, batch_size in {(run.data, run.batch_size) for run in runs}:
        open_stream(data, batch_size=batch_size)


def _grid(space: Part) -> list[dict[str, Any]]:
    """All combinations of the grids in a space, other domains left as they are."""
    grids = {path: _grid_values(path, domain) for path, domain in space.items()}
    return [dict(zip(grids, values, strict=True)) for values in product(*grids.values())]


def _grid_values(path: str, domain: Any) -> list[Any]:
    if not isinstance(domain, Mapping) or "grid_search" not in domain:
        return [domain]
    values = list(domain["grid_search"])
    if not values:
        raise ValueError(f"The grid of {path} must hold at least one value, got none.")
    return values


def _draw(path: str, domain: Any, rng: np.random.RandomState) -> Any:
    if isinstance(domain, Mapping):
        domain = Categorical(_grid_values(path, domain))
    if not isinstance(domain, Domain):
        return domain
    value = domain.sample(random_state=rng)
    return value.item() if isinstance(value, np.generic) else value
