"""One order of resolution: preset, ladder size, quantizer, interventions from left to right,
overrides."""

import ast
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from models import at_size, has_ladder
from models.quantize import Quantization
from tuner.config import Run, dotted, near, override
from tuner.interventions import INTERVENTIONS
from tuner.presets import PRESETS
from tuner.quantizers import QUANTIZERS

SIZE = "model.size"
"""Key of the ladder's dial in a space or an override; for transformers it sets the width."""
QUANTIZER = "quantizer"
"""Key in a space or an override that sets all of `quantization` by a quantizer's name."""
DIALS = (SIZE, SIZE.rpartition(".")[2])
"""What a misspelt size may stand for."""


def resolve(
    preset: str | Run,
    *,
    size: int | None = None,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Returns the complete run. An override of `steps` moves the preset's warm-up (5 %) and
    validations with it; one of `model.size` is the ladder's dial, one of `quantizer` the name of a
    complete quantization.

    Raises ValueError for unknown names (with the nearest one) and values that break a rule.
    """
    changes = dict(overrides or {})
    run = _preset(preset, changes)
    size = changes.pop(SIZE, size)
    if size is not None:
        if not has_ladder(run.model):
            raise ValueError(
                f"{SIZE} needs a model with a ladder, got {type(run.model).__name__}; sweep one of "
                f"its own fields."
            )
        run = override(run, {"model": at_size(run.model, _whole(size))})
    if QUANTIZER in changes:
        run = override(run, {"quantization": _quantization(changes.pop(QUANTIZER))})
    for name in interventions:
        if name not in INTERVENTIONS:
            raise ValueError(
                f"intervention must be one of {', '.join(INTERVENTIONS)}, got {name!r}."
                f"{near(name, INTERVENTIONS)}"
            )
        run = INTERVENTIONS[name](run)
    _check_dial(run, changes)
    return override(run, changes)


def _quantization(name: Any) -> Quantization:
    if name not in QUANTIZERS:
        raise ValueError(
            f"{QUANTIZER} must be one of {', '.join(QUANTIZERS)}, got {name!r}."
            f"{near(str(name), QUANTIZERS)}"
        )
    return QUANTIZERS[name]


def _check_dial(run: Run, changes: Mapping[str, Any]) -> None:
    """ValueError for the dial misspelt: it is no field, so `override` would name another one."""
    if not has_ladder(run.model):
        return  # No ladder, no dial.
    known = dotted(run)
    for path in changes:
        is_field = any(name == path or name.startswith(f"{path}.") for name in known)
        near_to = get_close_matches(path, [*known, *DIALS], n=1, cutoff=0.5)
        if not is_field and near_to and near_to[0] in DIALS:
            raise ValueError(
                f"There is no field {path}. Did you mean {SIZE}, the ladder's dial? It is --sizes "
                f"of a sweep and --size of a run."
            )


def _whole(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"{SIZE} must be a whole number, got {size!r}.")
    return size


def _preset(preset: str | Run, changes: dict[str, Any]) -> Run:
    if isinstance(preset, Run):
        return preset
    if preset in PRESETS:
        make: Run | Callable[..., Run] = PRESETS[preset]
    elif ".py" in preset:
        make = load_name(preset, default="RUN")
    else:
        raise ValueError(
            f"preset must be one of {', '.join(PRESETS)} or FILE.py:NAME, got {preset!r}."
            f"{near(preset, PRESETS)}"
        )
    if isinstance(make, Run):
        return make
    if isinstance(make, type):
        raise ValueError(f"preset must be a Run or a function of steps, got the class {preset}.")
    if not callable(make):
        raise ValueError(f"preset must be a Run or a function of steps, got {preset} = {make!r}.")
    steps: Any = changes.get("steps")
    if type(steps) in (int, float) and steps > 0 and float(steps).is_integer():
        changes.pop("steps")
        run = make(steps=int(steps))
    else:  # A bad value is left for Run's own rule, which names the field.
        run = make()
    if not isinstance(run, Run):
        raise ValueError(f"preset must give a Run, got {preset} that gives {run!r}.")
    return run


def load_name(reference: str, *, default: str) -> Any:
    """Returns the object that `FILE.py:NAME` names (NAME may be left out for `default`)."""
    file, _, name = reference.partition(":")
    path, name = Path(file), name or default
    if not path.is_file():
        raise ValueError(f"{reference} must name a file that exists, got no {path}.")
    # Under its own name and from its own folder, so that a worker or a resume can import it.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        module = importlib.import_module(path.stem)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path} must be a module that imports, got {reason}.") from error
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(
            f"{path} must have a name of its own, got {path.stem}, which is the module "
            f"{module.__file__}; rename it."
        )
    if not hasattr(module, name):
        raise ValueError(f"{path} must define {name}, got none; name another with {path}:NAME.")
    return getattr(module, name)


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Returns {path: value} of `path=value` texts; values are Python literals or plain words."""
    assignments: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"--set must look like optimizer.lr=1e-3, got {text!r}.")
        assignments[path] = parse_value(value)
    return assignments


def parse_grids(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Returns {path: values} of `path=v1,v2,...` texts."""
    grids: dict[str, list[Any]] = {}
    for text in texts:
        path, equals, values = text.partition("=")
        if not equals or not path:
            raise ValueError(f"--grid must look like optimizer.lr=1e-3,1e-2, got {text!r}.")
        grids[path] = [parse_value(v) for v in values.split(",") if v.strip()]
    return grids


def parse_value(text: str) -> Any:
    """Returns the Python literal in a text (1e-3, True, 'a'), or the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
