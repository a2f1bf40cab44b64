"""From a search space to the list of runs it means, checked before anything starts."""

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain

from search_spaces import SPACES
from tuner.config import Run, near
from tuner.data import TokenStream
from tuner.resolve import SIZE, load_name, resolve
from tuner.rundir import run_id, to_config

Space = Mapping[str, Any]
"""{dotted field: Ray Tune domain, grid, or a fixed value}."""

SEARCHES = ("grid", "random")


def named_space(name: str) -> Space:
    """Returns the space of a name, or of `FILE.py[:NAME]` (NAME is SPACE unless given)."""
    if name in SPACES:
        return SPACES[name].SPACE
    if ".py" in name:
        found = load_name(name, default="SPACE")
        return found.SPACE if isinstance(found, ModuleType) else found
    raise ValueError(
        f"space must be one of {', '.join(SPACES)} or FILE.py, got {name!r}.{near(name, SPACES)}"
    )


def narrow(
    space: Space, *, sizes: Iterable[int], grids: Mapping[str, list[Any]], fixed: Iterable[str]
) -> dict[str, Any]:
    """Returns the space with its sizes and grids replaced and the overridden fields taken out."""
    narrowed = {path: domain for path, domain in space.items() if path not in set(fixed)}
    narrowed |= {path: {"grid_search": values} for path, values in grids.items()}
    if sizes:
        narrowed[SIZE] = {"grid_search": list(sizes)}
    return narrowed


def check_dropped(space: Space, names: Iterable[str]) -> None:
    """Raises ValueError for a field to drop that the space doesn't hold."""
    for name in names:
        if name not in space:
            raise ValueError(
                f"--drop must name a field of the space ({', '.join(space)}), got {name!r}."
                f"{near(name, list(space))}"
            )


def plan(
    space: Space,
    *,
    preset: str | Run,
    search: str = "grid",
    num_samples: int = 1,
    seeds: int = 1,
    seed: int = 0,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Returns every run of a sweep, resolved and checked, without repetitions.

    grid: all combinations of the grids, each `num_samples` times with the other domains drawn.
    random: `num_samples` draws, grids drawn too. Every combination runs with `seeds` seeds from
    `seed` on. Raises ValueError for what can't run, before anything does.
    """
    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}.")
    for name, value in (("num_samples", num_samples), ("seeds", seeds)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}.")
    rng = np.random.RandomState(seed)
    draws = _grid(space) if search == "grid" else [dict(space)]
    runs: dict[str, Run] = {}
    for draw in [d for d in draws for _ in range(num_samples)]:
        chosen = {path: _draw(path, domain, rng) for path, domain in draw.items()}
        for offset in range(seeds):
            changes = {"seed": seed + offset, **chosen, **(overrides or {})}
            run = resolve(preset, interventions=interventions, overrides=changes)
            runs.setdefault(run_id(run), run)
    for data, batch_size in {(run.data, run.batch_size) for run in runs.values()}:
        TokenStream(data, batch_size=batch_size)
    return list(runs.values())


def _grid(space: Space) -> list[dict[str, Any]]:
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


def _json(value: Any) -> Any:
    return to_config(value) if is_dataclass(value) else value


def describe_space(space: Space) -> dict[str, Any]:
    """Returns a space as JSON values for `sweep.json`: grids as lists, domains as text."""
    return {
        path: [_json(value) for value in domain["grid_search"]]
        if isinstance(domain, Mapping)
        else (repr(domain) if isinstance(domain, Domain) else _json(domain))
        for path, domain in space.items()
    }
