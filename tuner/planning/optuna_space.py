"""A search space for Optuna: Ray Tune's domains as Optuna's distributions, and as JSON.

A space of several parts is a choice of the part, and the fields of each have names of their own
(`1:optimizer.lr`), since their domains differ. `sweep.json` keeps a space in this form: a resumed
sweep draws from it again.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from ray.tune.search.sample import (
    Categorical,
    Domain,
    Float,
    Integer,
    LogUniform,
    Quantized,
    Uniform,
)

from foretune.redaction import shown
from foretune.tuner.config.kept_secrets import give_back_at
from foretune.tuner.planning.spaces import Space, domain_text, parts_of
from foretune.tuner.records.own_models import recorded_class
from foretune.tuner.records.run_json import from_config, to_config

PART = "part"
"""Name of the choice between the parts of a space."""

MOVED = {
    "tuner.config": "foretune.tuner.config.run",
    "tuner.data": "foretune.tuner.config.tokens",
    "tuner.image_data": "foretune.tuner.config.images",
    "tuner.optimizer_config": "foretune.tuner.config.optimizer",
    "models.convnet": "foretune.models.nets.convnet",
    "models.transformer": "foretune.models.nets.transformer",
    "models.vit": "foretune.models.nets.vit",
    "models.torchvision_nets": "foretune.models.nets.torchvision_nets",
    "models.quantize": "foretune.models.quantization.config",
    "models.parametrize": "foretune.models.nets.parametrize",
}
"""Modules of parts of a Run that a `sweep.json` of version 0.1.0 names, and where they are now."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a field is chosen from."""

    distribution: BaseDistribution
    """Of the value, or of its place among values."""
    values: tuple[Any, ...] = ()
    """What a grid or `choice` holds, of any type; Optuna is shown their places."""

    def value(self, drawn: Any) -> Any:
        """Returns the field's value for what Optuna has drawn."""
        return self.values[drawn] if self.values else drawn

    def ends(self) -> list[Any]:
        """Returns the lowest and the highest value, or all that are listed."""
        if isinstance(self.distribution, FloatDistribution | IntDistribution):
            return [self.distribution.low, self.distribution.high]
        return list(self.values)

    def __str__(self) -> str:
        d = self.distribution
        if not isinstance(d, FloatDistribution | IntDistribution):
            return f"one of {', '.join(map(str, self.values))}"
        step = "" if d.step in (None, 1) else f" in steps of {d.step:g}"
        return f"from {d.low:g} to {d.high:g}{', log-uniform' if d.log else step}"


@dataclass(frozen=True, slots=True)
class OptunaSpace:
    """The parts of a space: each {dotted field: Choice, or a fixed value}."""

    parts: tuple[Mapping[str, Any], ...]

    def choices(self, part: int) -> Iterator[tuple[str, str, Choice]]:
        """Yields field, name at Optuna, and choice of every open field of a part."""
        for path, field in self.parts[part].items():
            if isinstance(field, Choice):
                yield path, f"{part}:{path}" if len(self.parts) > 1 else path, field

    def suggest(self, trial: Trial) -> None:
        """Lets Optuna choose: the part, then what is open in it; `trial.params` has the choice."""
        part = 0
        if len(self.parts) > 1:
            part = trial.suggest_categorical(PART, range(len(self.parts)))
        for _, name, choice in self.choices(part):
            _suggest(trial, name, choice.distribution)

    def chosen(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns {field: value} for the parameters of an Optuna trial."""
        part = params.get(PART, 0) if len(self.parts) > 1 else 0
        drawn = {path: choice.value(params[name]) for path, name, choice in self.choices(part)}
        return {**self.parts[part], **drawn}

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the space as JSON values; ValueError for a value that JSON has no form for."""
        return [{path: _pack(path, field) for path, field in p.items()} for p in self.parts]

    @classmethod
    def from_json(cls, parts: list[dict[str, Any]]) -> "OptunaSpace":
        """Returns the space of `to_json`; ValueError for a class that can't be imported."""
        return cls(
            tuple({path: give_back_at(path, _unpack(f)) for path, f in p.items()} for p in parts)
        )


def optuna_space(space: Space) -> OptunaSpace:
    """Returns a space for Optuna; ValueError for a domain that it has no distribution for."""
    parts = tuple({path: _field(path, d) for path, d in p.items()} for p in parts_of(space))
    found = OptunaSpace(parts)
    if len(parts) == 1 and not any(True for _ in found.choices(0)):
        raise ValueError(
            "space must leave something open for search=optuna, got fixed values alone; give a "
            "field a domain, or use search=grid."
        )
    return found


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            trial.suggest_categorical(name, choices)


def _field(path: str, domain: Any) -> Any:
    """A choice, or a fixed value as it is."""
    if isinstance(domain, Mapping) and "grid_search" in domain:
        return _listed(path, domain["grid_search"])
    if not isinstance(domain, Domain):
        return domain
    if isinstance(domain, Categorical):
        return _listed(path, domain.categories)
    sampler, step = domain.get_sampler(), None
    if isinstance(sampler, Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    log = isinstance(sampler, LogUniform)
    if not isinstance(domain, Float | Integer) or not (log or isinstance(sampler, Uniform)):
        raise ValueError(
            f"{path} must be uniform, log-uniform or a list for search=optuna, got "
            f"{domain_text(domain)}; give it another domain or use search=random."
        )
    if log and step is not None and not (step == 1 and isinstance(domain, Integer)):
        raise ValueError(
            f"{path} must have steps or a logarithmic scale for search=optuna, got both in "
            f"{domain_text(domain)}; use the one without q, or search=random."
        )
    return Choice(_numbers(path, domain, step, log=log))


def _numbers(path: str, domain: Float | Integer, step: Any, *, log: bool) -> BaseDistribution:
    if isinstance(domain, Integer):
        step = step or 1
        # Ray's integers end below their upper bound, save in steps above 1.
        low = math.ceil(domain.lower / step) * step
        high = math.floor((domain.upper - (step == 1)) / step) * step
        _check_between(path, domain, low, high)
        return IntDistribution(low, high, log=log, step=step)
    _check_between(path, domain, domain.lower, domain.upper)
    return FloatDistribution(domain.lower, domain.upper, log=log, step=None if log else step)


def _check_between(path: str, domain: Domain, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(
            f"{path} must lie between two numbers for search=optuna, got {domain_text(domain)}."
        )


def _listed(path: str, values: Any) -> Choice:
    values = tuple(values)
    if not values:
        raise ValueError(f"The values of {path} must be one or more, got none.")
    return Choice(CategoricalDistribution(range(len(values))), values)


def _pack(path: str, field: Any) -> dict[str, Any]:
    if not isinstance(field, Choice):
        return {"value": pack_value(path, field)}
    if field.values:
        return {"values": [pack_value(path, value) for value in field.values]}
    return {"distribution": json.loads(distribution_to_json(field.distribution))}


def _unpack(field: Mapping[str, Any]) -> Any:
    if "value" in field:
        return unpack_value(field["value"])
    if "values" in field:
        values = tuple(map(unpack_value, field["values"]))
        return Choice(CategoricalDistribution(range(len(values))), values)
    return Choice(json_to_distribution(json.dumps(field["distribution"])))


def pack_value(path: str, value: Any) -> Any:
    """Returns a field's value as JSON: a part of a Run with its class, by which it is found.

    Raises ValueError for a value that JSON has no form for.
    """
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        return {"class": f"{cls.__module__}:{cls.__qualname__}", "fields": to_config(value)}
    try:
        if isinstance(value, Mapping):
            raise TypeError
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"{path} must be a JSON value or a part of a Run for search=optuna, which resumes from "
            f"sweep.json, got {value!r}."
        ) from None
    return shown(path, value)


def unpack_value(value: Any) -> Any:
    """Returns the value of `pack_value`; ValueError for a class that can't be imported."""
    if isinstance(value, list):
        return tuple(map(unpack_value, value))
    if not isinstance(value, Mapping):
        return value
    module, _, name = str(value["class"]).partition(":")
    cls = recorded_class("A class of sweep.json", f"{MOVED.get(module, module)}:{name}")
    return from_config(value["fields"], cls)
