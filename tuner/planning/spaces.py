"""Search spaces by name, and what the command line changes in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

from ray.tune.search.sample import Domain, Quantized

from foretune.argument_error import Argument, ArgumentError
from foretune.redaction import shown
from foretune.search_spaces import SPACES, space_module
from foretune.search_spaces.interventions import EACH
from foretune.tuner.config.assignments import check_distinct
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.override import near
from foretune.tuner.config.resolve import INTERVENTION, SIZE
from foretune.tuner.config.run import Run
from foretune.tuner.config.user_files import load_file, load_name
from foretune.tuner.records.run_json import to_config

Part = Mapping[str, Any]
"""{dotted field: Ray Tune domain, grid, or a fixed value}."""
Space = Part | Sequence[Part]
"""One part, or several of which a sweep runs all: a field's domain can differ between them."""
DEFAULT_PRESET = "lm-tiny"
"""What a space's fields are changed in, unless its module has a PRESET."""


def named_space(name: str) -> Space:
    """Returns the space of a name, or of `FILE.py[:NAME]` (NAME is SPACE unless given)."""
    if name in SPACES:
        return _with_each(space_module(name).SPACE)
    if ".py" in name:
        found = load_name(name, default="SPACE")
        return found.SPACE if isinstance(found, ModuleType) else found
    raise ValueError(
        f"space must be one of {', '.join(SPACES)} or FILE.py, got {name!r}.{near(name, SPACES)}"
    )


def _with_each(space: Space) -> Space:
    """Returns the space with the name of each intervention where its grid of them says EACH.

    Spaces know nothing of the tuner, which has the names.
    """
    if not isinstance(space, Mapping):
        return space
    grid = space.get(INTERVENTION)
    if not isinstance(grid, Mapping) or EACH not in grid["grid_search"]:
        return space
    names = [n for name in grid["grid_search"] for n in (INTERVENTIONS if name == EACH else [name])]
    return {**space, INTERVENTION: {"grid_search": names}}


def named_preset(name: str) -> str | Run:
    """Returns the preset of a space's module: its PRESET, or lm-tiny."""
    if ".py" in name:
        module = vars(load_file(name))
    else:
        module = vars(space_module(name)) if name in SPACES else {}
    preset = module.get("PRESET", DEFAULT_PRESET)
    if not isinstance(preset, str | Run):
        raise ValueError(f"PRESET of {name} must be a preset's name or a Run, got {preset!r}.")
    return preset


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
    sizes = list(sizes)
    check_distinct("sizes", sizes)
    new = {path: {"grid_search": values} for path, values in (grids or {}).items()}
    named = {"grids": new, "drop": list(drop), "overrides": list(fixed)}
    if sizes:
        named["sizes"] = {SIZE: {"grid_search": sizes}}
    _check_named_once(named)
    known = list(dict.fromkeys(path for part in parts_of(space) for path in part))
    for path in named["drop"]:
        if path not in known:
            raise ArgumentError(
                Argument("drop"),
                f" must name a field of the space ({', '.join(known)}), got {path!r}."
                f"{near(path, known)}",
            )
    gone = {*named["drop"], *named["overrides"]}
    replaced = new | named.get("sizes", {})
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


def _check_named_once(named: Mapping[str, Iterable[str]]) -> None:
    """ValueError where one argument would quietly undo another."""
    seen: dict[str, str] = {}
    for argument, paths in named.items():
        for path in paths:
            if seen.get(path) == argument:
                raise ArgumentError(
                    Argument(argument), f" must name a field once, got {path} twice; leave one out."
                )
            if path in seen:
                raise ArgumentError(
                    f"{path} must be given by one option, got ",
                    Argument(seen[path]),
                    " and ",
                    Argument(argument),
                    "; leave one out.",
                )
            seen[path] = argument


def json_value(value: Any) -> Any:
    """Returns a value, or a part of a Run, as JSON."""
    return to_config(value) if is_dataclass(value) else value


def shown_value(path: str, value: Any) -> Any:
    """Returns the value of a field as JSON, `***` for that of a secret."""
    return shown(path, json_value(value))


def describe_space(space: Part) -> dict[str, Any]:
    """Returns a part of a space as JSON values: grids as lists, domains as text."""
    return {
        path: [shown_value(path, value) for value in domain["grid_search"]]
        if isinstance(domain, Mapping)
        else shown(path, domain_text(domain))
        if isinstance(domain, Domain)
        else shown_value(path, domain)
        for path, domain in space.items()
    }


def domain_text(domain: Domain) -> str:
    """Returns a domain in words (Ray's own text is an address): `Float(0.001, 0.1) LogUniform`."""
    sampler, steps = domain.get_sampler(), ""
    if isinstance(sampler, Quantized):
        sampler, steps = sampler.get_sampler(), f" in steps of {sampler.q:g}"
    return f"{type(domain).__name__}{domain.domain_str} {type(sampler).__name__.lstrip('_')}{steps}"
