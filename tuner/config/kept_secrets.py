"""Secrets in a user's own config, such as `api_key`: in no file, in this process's memory alone.

Where a config is written, `***` stands for one. What reads it back gives it the value that this
process was told: by the runs that it planned, or by its driver.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from foretune.redaction import HIDDEN, hides, remember, shown

_kept: dict[str, str] = {}
"""Values by class and field (see `_place`), and by dotted path of a run."""


def keep_secrets(*runs: Any) -> None:
    """Notes the secrets in runs, for what is read back from files by this process or its workers.

    Later ones replace earlier ones. Raises ValueError where two of these runs differ in one: they
    would have one name.
    """
    found: dict[str, tuple[str, str]] = {}
    for run in runs:
        for path, place, value in _secrets(run):
            if HIDDEN in value:
                continue
            if found.setdefault(place, (path, value))[1] != value:
                raise ValueError(
                    f"{path} must have one value in all runs of a sweep, since it is a secret and "
                    f"in no run's name, got two; run a sweep for each."
                )
    for place, (path, value) in found.items():
        keep({place: value, path: value})


def keep(secrets: Mapping[str, str]) -> None:
    """Notes secrets as `kept_secrets` has them: what a worker does with its driver's."""
    _kept.update(secrets)
    remember(*secrets.values())


def kept_secrets() -> dict[str, str]:
    """Returns the secrets that this process was told, for its workers."""
    return dict(_kept)


def give_back(target: type, f: "Field[Any]", written: Any) -> Any:
    """Returns the value of a field as a file has it, or the secret that stood there.

    That is the one that this process was told, else the class's own default, else `***` itself:
    whoever trains such a run calls `check_kept`.
    """
    if not isinstance(written, str) or HIDDEN not in written:
        return written
    return _matching(f.name, written, _kept.get(_place(target, f)), f.default)


def give_back_at(path: str, written: Any) -> Any:
    """Returns the value at a dotted path of a run, as `give_back` does."""
    if not isinstance(written, str) or HIDDEN not in written:
        return written
    return _matching(path, written, _kept.get(path))


def _matching(name: str, written: str, *values: object) -> str:
    found = (v for v in values if isinstance(v, str) and shown(name, v) == written != v)
    return next(found, written)


def check_kept(run: Any) -> None:
    """Raises ValueError where a secret of a run that was read back isn't known."""
    check_given({path: value for path, _, value in _secrets(run)})


def check_given(values: Mapping[str, Any]) -> None:
    """Raises ValueError where one of these values by field still is what stands for a secret."""
    for path, value in values.items():
        if isinstance(value, str) and HIDDEN in value:
            raise ValueError(
                f"{path} must be given again, since a secret is kept in no file, got {value}; name "
                f"the preset that holds it: foretune resume DIR --preset FILE.py:NAME."
            )


def without_secrets(run: Any) -> str:
    """Returns `repr(run)` with `***` for its secrets; of a run without any it is just that."""
    text = repr(run)
    for _, _, value in sorted(_secrets(run), key=lambda secret: -len(secret[2])):
        text = text.replace(repr(value), repr(HIDDEN))
        text = text.replace(value, HIDDEN) if len(value) >= len(HIDDEN) else text
    return text


def _secrets(value: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields dotted path, place and value of every secret of a Run or one of its parts."""
    for f in fields(value) if is_dataclass(value) else ():
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield from _secrets(inner, f"{path}{f.name}.")
        elif isinstance(inner, str) and hides(f.name, inner):
            yield f"{path}{f.name}", _place(type(value), f), inner


def _place(target: type, f: "Field[Any]") -> str:
    return f"{target.__module__}:{target.__qualname__}.{f.name}"
