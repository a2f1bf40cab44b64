"""Model configs and quantization as JSON values, as files carry them."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from foretune.models.blocks.buildable import Buildable
from foretune.models.nets.kinds import MODELS
from foretune.models.quantization.config import Quantization


def config_to_json(config: Buildable) -> dict[str, Any]:
    """Returns `{"kind": ..., fields}`; a user's own kind is `module:class`."""
    if not is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"config must be a dataclass, got {type(config).__name__}.")
    return {"kind": _kind(type(config)), **asdict(config)}


def config_from_json(json: Mapping[str, Any]) -> Buildable:
    """Returns the config; a kind that isn't in MODELS is refused, since it would run code."""
    values = dict(json)
    kind = values.pop("kind")
    if kind not in MODELS:
        raise ValueError(
            f"model.kind must be one of {', '.join(MODELS)} to be built from a file, got {kind!r}; "
            f"pass its config to load_model."
        )
    return _build(MODELS[kind], values)


def quantization_to_json(quantization: Quantization) -> dict[str, Any]:
    """Returns its fields."""
    return asdict(quantization)


def quantization_from_json(json: Mapping[str, Any]) -> Quantization:
    """Returns the quantization of its fields."""
    return _build(Quantization, json)


def _kind(cls: type) -> str:
    named = {c: name for name, c in MODELS.items()}
    return named.get(cls, f"{cls.__module__}:{cls.__qualname__}")


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    unknown = values.keys() - {f.name for f in fields(cls)}
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(sorted(unknown))}, got a file that has; load "
            f"it with the version of foretune that wrote it."
        )
    return cls(**values)
