"""From a search space to the list of runs it means, checked before anything starts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, is_dataclass
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
from ray.tune.search.sample import Categorical, Domain

from search_spaces import SPACES
from tuner.config import Run, dotted, near
from tuner.resolve import SIZE, load_name, resolve
from tuner.rundir import run_id, to_config
from tuner.streams import open_stream

Part = Mapping[str, Any]
"""{dotted field: Ray Tune domain, grid, or a fixed value}."""
Space = Part | Sequence[Part]
"""One part, or several of which a sweep runs all: a field's domain can differ between them."""

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
    space: Space,
    *,
    sizes: Iterable[int] = (),
    grids: Mapping[str, list[Any]] | None = None,
    drop: Iterable[str] = (),
    fixed: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Returns the space's parts with sizes and grids replaced, dropped and fixed fields taken out.

    Raises ValueError for a field to drop that no part holds, and for one named twice.
    """
    new = {path: {"grid_search": values} for path, values in (grids or {}).items()}
    options = {"--grid": new, "--drop": list(drop), "--set": list(fixed)}
    if sizes:
        options["--sizes"] = {SIZE: {"grid_search": list(sizes)}}
    _check_named_once(options)
    known = list(dict.fromkeys(path for part in parts_of(space) for path in part))
    for path in options["--drop"]:
        if path not in known:
            raise ValueError(
                f"--drop must name a field of the space ({', '.join(known)}), got {path!r}."
                f"{near(path, known)}"
            )
    gone = {*options["--drop"], *options["--set"]}
    replaced = new | options.get("--sizes", {})
    return [
        {path: domain for path, domain in part.items() if path not in gone} | replaced
        for part in parts_of(space)
    ]


def parts_of(space: Space) -> list[Part]:
    """Returns the parts of a space; ValueError where it has another form."""
    parts = [space] if isinstance(space, Mapping) else space
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"space must be a dict of fields or a list of such dicts, got {space!r}.")
    for part in parts:
        if not isinstance(part, Mapping):
            raise ValueError(f"each part of a space must be a dict of fields, got {part!r}.")
    return list(parts)


def _check_named_once(options: Mapping[str, Iterable[str]]) -> None:
    """ValueError where one option would quietly undo another."""
    seen: dict[str, str] = {}
    for option, paths in options.items():
        for path in paths:
            if path in seen:
                raise ValueError(
                    f"{path} must be given by one option, got {seen[path]} and {option}; leave "
                    f"one out."
                )
            seen[path] = option


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep runs: a space, and how runs are drawn from it and completed."""

    space: Space
    """{dotted field: Ray Tune domain, grid, or a fixed value}, or a list of such parts."""
    _: KW_ONLY
    name: str = "own"
    """The space's name, for the record."""
    preset: str | Run = "lm-tiny"
    """What the space's fields are changed in: a name, FILE.py:NAME, or a run."""
    search: str = "grid"
    """grid: all combinations of the grids, each `num_samples` times with the other domains drawn.
    random: `num_samples` draws of each part, grids drawn too."""
    num_samples: int = 1
    """Draws, or repetitions of each combination."""
    seeds: int = 1
    """Seeds of every combination, from `seed` on."""
    seed: int = 0
    """First seed, and the seed of random draws."""
    interventions: tuple[str, ...] = ()
    """Named changes to every run, from left to right."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """{dotted field: value} of every run; wins over the space."""

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {self.search!r}.")
        for name in ("num_samples", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")

    def runs(self) -> list[Run]:
        """Returns every run, resolved and checked, without repetitions.

        Raises ValueError for what can't run, before anything does.
        """
        rng = np.random.RandomState(self.seed)
        grid, parts = self.search == "grid", parts_of(self.space)
        draws = [draw for part in parts for draw in (_grid(part) if grid else [dict(part)])]
        runs: dict[str, Run] = {}
        for draw in [d for d in draws for _ in range(self.num_samples)]:
            chosen = {path: _draw(path, domain, rng) for path, domain in draw.items()}
            for offset in range(self.seeds):
                changes = {"seed": self.seed + offset, **chosen, **self.overrides}
                run = resolve(self.preset, interventions=self.interventions, overrides=changes)
                runs.setdefault(run_id(run), run)
        for data, batch_size in {(run.data, run.batch_size) for run in runs.values()}:
            open_stream(data, batch_size=batch_size)
        return list(runs.values())

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
            "overrides": {path: _json(value) for path, value in self.overrides.items()},
        }


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


def _json(value: Any) -> Any:
    return to_config(value) if is_dataclass(value) else value


def describe_space(space: Part) -> dict[str, Any]:
    """Returns a part of a space as JSON values: grids as lists, domains as text."""
    return {
        path: [_json(value) for value in domain["grid_search"]]
        if isinstance(domain, Mapping)
        else (repr(domain) if isinstance(domain, Domain) else _json(domain))
        for path, domain in space.items()
    }


def label_runs(runs: list[Run]) -> dict[str, str]:
    """Returns a short name for every run, by run id: the fields in which they differ."""
    flat = {run_id(run): dotted(run) for run in runs}
    paths = list(next(iter(flat.values()))) if flat else []
    varying = [p for p in paths if len({repr(f.get(p)) for f in flat.values()}) > 1]
    return {
        name: " ".join(f"{p.rpartition('.')[2]}={_short(fields.get(p))}" for p in varying) or name
        for name, fields in flat.items()
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
