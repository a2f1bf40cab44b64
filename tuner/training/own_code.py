"""Errors in code that isn't ours: a user's model that fails, with the place in the user's file."""

import inspect
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

import foretune


class ModelError(RuntimeError):
    """A user's model failed: a sentence with the place in the user's file."""


def build(config: Any) -> nn.Module:
    """Returns the model of a config; ModelError where a user's own can't be built."""
    try:
        model = config.build()
        if not isinstance(model, nn.Module):
            raise TypeError(f"build() must return a torch.nn.Module, got {type(model).__name__}")
    except Exception as error:
        if type(config).__module__.startswith("foretune."):
            raise
        raise ModelError(failure(error, config)) from error
    return model


def failure(error: BaseException, config: Any) -> str:
    """Returns what failed of a model, where in its user's code, and why, on one line."""
    if isinstance(error, ModelError):
        return str(error)
    reason = " ".join(str(error).split()) or "no message"
    where = place(error) or _first_line(config)
    return f"{type(config).__name__} fails at {where}: {type(error).__name__}: {reason}"


def place(error: BaseException) -> str:
    """Returns the innermost file and line in a user's code that an error comes from, or nothing."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            return f"{Path(frame.filename).name}, line {frame.lineno}"
    return ""


def _first_line(config: Any) -> str:
    code = inspect.unwrap(type(config).build).__code__
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}"


@cache
def _is_users(filename: str) -> bool:
    ours = Path(foretune.__file__).parent
    folders = [ours, *(link.resolve() for link in ours.iterdir() if link.is_dir())]
    folders += [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    # Code of a notebook's cell has no file; what Python and torch make up stands in <>.
    made_up = filename.startswith("<") and not filename.startswith("<ipython")
    return not made_up and not any(Path(filename).is_relative_to(folder) for folder in folders)
