"""What a sweep leaves on disk: DIR/sweep.json and DIR/runs/<run_id>/.

The directory is the journal: a run with `run.json` and no `outcome.json` is unfinished. Everything
is written whole or not at all, except `metrics.jsonl`, which grows by lines.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, cast, get_type_hints

from foretune.models import MODELS, count, count_module, has_ladder, size_of
from foretune.models.nets.parametrize import check_parametrization
from foretune.models.quantization.stored_bytes import FP32_BYTES, weight_bytes
from foretune.tuner.config.images import SOURCES, ImageData
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data

FORMAT = 1


def to_config(value: Any) -> Any:
    """Returns a Run or one of its parts as nested JSON values; a model carries its `kind`."""
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    config = {f.name: to_config(getattr(value, f.name)) for f in fields(value)}
    return {"kind": _kind(value), **config} if hasattr(value, "build") else config


def from_config(config: Mapping[str, Any], target: type = Run) -> Any:
    """Returns the Run of nested JSON values; the inverse of `to_config`.

    A field that is not there, since an older version wrote the values, takes its default. Raises
    ValueError where a user's model class can't be imported, or lacks a default for such a field,
    and for a field that this version doesn't know.
    """
    values: dict[str, Any] = {}
    unknown = config.keys() - {f.name for f in fields(target)} - {"kind"}
    if unknown:
        raise ValueError(
            f"run.json must have the fields of this version of foretune, got {min(unknown)} of "
            f"{target.__name__}; use the version that wrote it."
        )
    types = get_type_hints(target)  # Postponed annotations are text in f.type.
    for f in fields(target):
        if f.name not in config:
            _check_default(f, target)
            continue
        value = config[f.name]
        if f.name == "model" and target is Run:
            values["model"] = from_config(value, _model_class(value["kind"]))
        elif f.name == "data" and target is Run:
            values["data"] = from_config(value, ImageData if value["name"] in SOURCES else Data)
        elif isinstance(value, Mapping):
            values[f.name] = from_config(value, cast("type", types[f.name]))
        else:
            values[f.name] = _tuples(value)
    return target(**values)


def _check_default(f: "Field[Any]", target: type) -> None:
    if f.default is MISSING and f.default_factory is MISSING:
        raise ValueError(
            f"run.json must hold {f.name} of {target.__name__}, which has no default, got none; "
            f"give the field a default."
        )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _kind(model: Any) -> str:
    cls = type(model)
    named = {c: name for name, c in MODELS.items()}
    return named.get(cls, f"{cls.__module__}:{cls.__qualname__}")


def _model_class(kind: str) -> type:
    if kind in MODELS:
        return MODELS[kind]
    module, _, name = kind.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(
            f"model.kind must be importable here, got {kind!r}; start from the folder that holds "
            f"its module, and keep the class outside of __main__."
        ) from None


def run_id(run: Run) -> str:
    """Returns the name of a run: 12 hexadecimal digits of the hash of its config, seed included."""
    text = json.dumps(to_config(run), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe(run: Run) -> dict[str, Any]:
    """Returns the content of `run.json`: id, config, rung, counts.

    Raises ValueError where the run's parametrization doesn't fit its model.
    """
    check_parametrization(run.model, run.parametrization)
    counts = count(run.model) if has_ladder(run.model) else count_module(run.model.build())
    return {
        "format": FORMAT,
        "run_id": run_id(run),
        "config": to_config(run),
        "size": size_of(run.model),
        "n_params": counts.n_params,
        "n_params_total": counts.n_params_total,
        "weight_bytes": weight_bytes(run.model, run.quantization)
        if run.quantization.active
        else FP32_BYTES * counts.n_params_total,
        "tokens_per_step": run.batch_size * run.data.predictions,
        "flops_per_token": counts.flops_per_token,
    }


def cost(run_json: Mapping[str, Any]) -> float:
    """Returns the training cost of a run in floating-point operations, for order and time left."""
    tokens = run_json["tokens_per_step"] * run_json["config"]["steps"]
    return float(run_json["flops_per_token"]) * tokens
