"""Classes of users' own, by the names that records have of them.

A record may name any module, and importing one runs its code. So only what the user has asked for
is imported: a module that this process has loaded (by a preset, say), or one in the folder that the
command was started from, unless that lies among records.
"""

import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from foretune.argument_error import Argument, ArgumentError
from foretune.models import MODELS


def kind_of(model: Any) -> str:
    """Returns the name of a model's class: ours by the table, a user's as module:Class."""
    cls = type(model)
    named = {c: name for name, c in MODELS.items()}
    return named.get(cls, f"{cls.__module__}:{cls.__qualname__}")


def model_class(kind: Any, known: Mapping[str, type] | None = None) -> type:
    """Returns the class of a name; known are those that somebody vouches for, by name.

    Raises ValueError where it can't be imported, may not be, or is no class of models.
    """
    if isinstance(kind, str) and kind in MODELS:
        return MODELS[kind]
    if known and kind in known:
        return known[kind]
    found = recorded_class("model.kind", kind)
    if not hasattr(found, "build"):
        raise ValueError(f"model.kind must name a class with build(), got {kind!r}.")
    return found


def recorded_class(what: str, name: Any) -> type:
    """Returns the dataclass that a record names as module:Class; what is the field that names it.

    Raises ValueError where it can't be imported, or may not be.
    """
    module, _, path = name.partition(":") if isinstance(name, str) else ("", "", "")
    found: Any = sys.modules.get(module)
    if found is None:
        found = import_module(module) if _is_ours(module) else _imported(module, what, name)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(
            f"{what} must name a dataclass as module:Class, got {name!r:.100}; keep the class "
            f"outside of __main__."
        )
    return found


def check_asked(what: str, path: Path) -> None:
    """Raises ValueError for a file of code that a record names and that nobody has asked for.

    Asked for is what this process has loaded, and what lies below the folder it was started from,
    outside of records.
    """
    loaded = getattr(sys.modules.get(path.stem), "__file__", None)
    if loaded and Path(loaded).resolve() == path.resolve():
        return
    if not path.resolve().is_relative_to(Path.cwd()) or _among_records(path):
        raise _unasked(what, str(path))


def _unasked(what: str, name: str) -> ValueError:
    return ArgumentError(
        f"{what} must be importable here, got {name!r}; start from the folder that holds its "
        f"module, which must not lie among records, or name its file with ",
        Argument("preset"),
        " FILE.py.",
    )


def _is_ours(module: str) -> bool:
    return module.startswith("foretune.") and find_spec(module) is not None


def _imported(module: str, what: str, name: Any) -> Any:
    path = _source(Path.cwd(), module)
    if path is None or _among_records(path):
        raise _unasked(what, str(name))
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = import_module(module)
    except Exception as error:  # Whatever a user's file may raise.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path} must be a module that imports, got {reason}.") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if Path(found.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"{what} must be of {path}, got {found.__file__}; rename the module.")
    return found


def _source(folder: Path, module: str) -> Path | None:
    """The file of a module below a folder; importlib would import its packages to find it."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    stem = folder.joinpath(*parts)
    candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _among_records(path: Path) -> bool:
    """Whether a file lies in a sweep or a run, or where a sweep or runs of `train` are written."""
    above = [at for at in path.resolve().parents if at.is_relative_to(Path.cwd())]
    return any(
        (at / "sweep.json").exists()
        or (at / "run.json").exists()
        or any(at.glob("runs/*/run.json"))
        for at in above
    )
