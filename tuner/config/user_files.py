"""What a user's own file defines, by `FILE.py:NAME`."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_folders: dict[str, None] = {}


def own_folders() -> tuple[str, ...]:
    """Returns the folders of the files that this process has loaded: workers import from them."""
    return tuple(_folders)


def load_name(reference: str, *, default: str) -> Any:
    """Returns the object that `FILE.py:NAME` names (NAME may be left out for `default`)."""
    module = load_file(reference)
    name = reference.partition(":")[2] or default
    if not hasattr(module, name):
        path = Path(reference.partition(":")[0])
        raise ValueError(f"{path} must define {name}, got none; name another with {path}:NAME.")
    return getattr(module, name)


def load_file(reference: str) -> ModuleType:
    """Returns the module of a user's `FILE.py`, or of `FILE.py:NAME`."""
    path = Path(reference.partition(":")[0])
    if not path.is_file():
        raise ValueError(f"{reference} must name a file that exists, got no {path}.")
    # Under its own name and from its own folder, so that a worker or a resume can import it.
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    _folders[folder] = None
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
    return module
