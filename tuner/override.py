"""Frozen dataclasses by dotted path: change fields, list them, name the nearest one."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")


def near(word: str, names: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """Returns ` Did you mean NAME?` for the nearest of names, or nothing."""
    close = get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def override(target: T, changes: Mapping[str, Any]) -> T:
    """Returns a copy of a frozen dataclass with the fields at dotted paths replaced.

    Fields of one part change together, so width and head_dim can move at once. Raises ValueError
    for a path that doesn't exist (with the nearest one) or a value that breaks a rule.
    """
    return _override(target, changes, prefix="")


def _override(target: Any, changes: Mapping[str, Any], prefix: str) -> Any:
    names = [f.name for f in fields(target)]
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if head not in names or (rest and not is_dataclass(getattr(target, head))):
            raise ValueError(f"There is no field {prefix}{path}.{_nearest(path, target, prefix)}")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            direct[head] = _fit_type(f"{prefix}{head}", value, getattr(target, head))
    for head, inner in nested.items():
        base = direct.get(head, getattr(target, head))
        direct[head] = _override(base, inner, prefix=f"{prefix}{head}.")
    return replace(target, **direct)


def _nearest(path: str, target: Any, prefix: str) -> str:
    known = list(dotted(target))
    hint = near(path, known)
    if not hint:
        same_leaf = [k for k in known if k.rpartition(".")[2] == path.rpartition(".")[2]]
        hint = f" Did you mean {same_leaf[0]}?" if same_leaf else f" There are: {', '.join(known)}."
    return hint.replace("mean ", f"mean {prefix}") if prefix else hint


def _fit_type(path: str, value: Any, old: Any) -> Any:
    """Numbers are accepted across int and float where nothing is lost; the rest as it is."""
    if isinstance(old, bool) or isinstance(value, bool):
        return value
    if isinstance(value, Real) and isinstance(old, float):
        return float(value)  # numpy's, too, whose repr would make it another run.
    if isinstance(value, Real) and isinstance(old, int) and float(value).is_integer():
        return int(float(value))
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if is_dataclass(old) and not is_dataclass(value):
        raise ValueError(f"{path} is a group of fields and can't be set to {value!r}; set a field.")
    return value


def dotted(target: Any, prefix: str = "") -> dict[str, Any]:
    """Returns every leaf of a nested dataclass by dotted path."""
    flat: dict[str, Any] = {}
    for f in fields(target):
        value = getattr(target, f.name)
        if is_dataclass(value):
            flat.update(dotted(value, f"{prefix}{f.name}."))
        else:
            flat[f"{prefix}{f.name}"] = value
    return flat
