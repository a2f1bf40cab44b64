"""The config that a watched run is given, in whatever form, and what is read off beside it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import SimpleNamespace
from typing import Any

from foretune.analysis.records.run_files import flatten
from foretune.redaction import shown


def plain_config(config: Any) -> dict[str, Any]:
    """Returns a config as nested JSON values, `***` for secrets.

    It may be a mapping (its keys nested or dotted), a dataclass, a namespace as of argparse, or
    have a `to_dict`, as those of Hugging Face. What JSON has no value for becomes text. Raises
    ValueError for anything else.
    """
    if config is None:
        return {}
    to_dict = getattr(config, "to_dict", None)
    if callable(to_dict):
        config = to_dict()
    elif is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    elif isinstance(config, SimpleNamespace) or type(config).__name__ == "Namespace":
        config = vars(config)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"config must be a mapping, a dataclass, a namespace or have a to_dict(), got "
            f"{type(config).__name__}; dict(lr=0.01) is an example."
        )
    return {str(name): _plain(str(name), value) for name, value in config.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}.{key}", one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(name, one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    known = value is None or isinstance(value, str | bool | int | float)
    return shown(name, value if known else str(value))


def with_facts(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with facts by dotted path beside it, where it doesn't say them itself."""
    known = flatten(config)
    merged = {name: _copied(value) for name, value in config.items()}
    for path, value in facts.items():
        if path in known or value is None:
            continue
        *folders, name = path.split(".")
        place: Any = merged
        for folder in folders:
            place = place.setdefault(folder, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[name] = value
        else:  # config's own `model` is a word, say.
            merged[path] = value
    return merged


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value
