"""Frozen dataclasses by dotted path: change fields, list them, name the nearest one."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeVar

T = TypeVar("T")

ALIASES = {
    "batch": "batch_size",
    "context": "sequence_length",
    "eps": "epsilon",
    "grad_clip": "clip_norm",
    "hidden_size": "width",
    "layers": "depth",
    "learning_rate": "lr",
    "max_steps": "steps",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
}
"""What fields are called elsewhere; for hints alone."""


class UnknownField(ValueError):
    """A dotted path that names no field."""

    def __init__(self, sentence: str, *, path: str = "", owner: str = "", hint: str = ""):
        super().__init__(sentence)
        self.path, self.owner, self.hint = path, owner, hint
        """The path, the class that lacks it, and ` Did you mean ...?` or nothing."""


def near(word: str, names: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """Returns ` Did you mean NAME?` for the nearest of names, or nothing."""
    close = get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def override(target: T, changes: Mapping[str, Any]) -> T:
    """Returns a copy of a frozen dataclass with the fields at dotted paths replaced.

    Fields of one part change together, so width and head_dim can move at once. Raises UnknownField,
    a ValueError, for a path that doesn't exist (with the nearest one), and ValueError for a value
    that breaks a rule.
    """
    return _override(target, changes, prefix="")


def _override(target: Any, changes: Mapping[str, Any], prefix: str) -> Any:
    names = [f.name for f in fields(target)]
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if head not in names or (rest and not is_dataclass(getattr(target, head))):
            raise _unknown(path, target, prefix)
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            direct[head] = _fit_type(f"{prefix}{head}", value, getattr(target, head))
    for head, inner in nested.items():
        base = direct.get(head, getattr(target, head))
        direct[head] = _override(base, inner, prefix=f"{prefix}{head}.")
    return replace(target, **direct)


def _unknown(path: str, target: Any, prefix: str) -> UnknownField:
    owner, known = type(target).__name__, list(dotted(target))
    hint = (_same_meaning(path, known) or near(path, known)).replace("mean ", f"mean {prefix}")
    start = f"{prefix}{path} is no field of {owner}" if prefix else f"There is no field {path}"
    end = hint or f" There are: {', '.join(known)}."
    return UnknownField(f"{start}.{end}", path=f"{prefix}{path}", owner=owner, hint=hint)


def _same_meaning(path: str, known: list[str]) -> str:
    """Returns the hint for the one field of the path's last name, or of what that stands for."""
    leaf = path.rpartition(".")[2]
    alias = get_close_matches(leaf, ALIASES, n=1, cutoff=0.75)
    for name in (leaf, *(ALIASES[word] for word in alias)):
        same = [k for k in known if k.rpartition(".")[2] == name]
        if len(same) == 1:
            return f" Did you mean {same[0]}?"
    return ""


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
