"""Rules that fields of model configs share; each message gives subject, rule, value, cure."""

import math
from collections.abc import Iterable


def check_whole(
    config: object, names: Iterable[str], *, group: str = "model", low: int = 1
) -> None:
    """Raises ValueError unless each named field is a whole number from low up."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"{group}.{name} must be a whole number from {low} up, got {value!r}.")


def check_one_of(config: object, name: str, names: Iterable[str]) -> None:
    """Raises ValueError unless the named field is one of the names."""
    names, value = list(names), getattr(config, name)
    if value not in names:
        raise ValueError(f"model.{name} must be one of {', '.join(names)}, got {value!r}.")


def check_flags(config: object, names: Iterable[str]) -> None:
    """Raises ValueError unless each named field is True or False."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, bool):
            raise ValueError(f"model.{name} must be True or False, got {value!r}.")


def check_positive(config: object, name: str) -> None:
    """Raises ValueError unless the named field is a finite number above 0."""
    value = getattr(config, name)
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"model.{name} must be a finite number above 0, got {value!r}.")


def check_from_zero(config: object, names: Iterable[str]) -> None:
    """Raises ValueError unless each named field is a finite number from 0 up."""
    for name in names:
        value = getattr(config, name)
        if not _is_finite(value) or value < 0:
            raise ValueError(
                f"model.{name} must be a finite number from 0 up, got {value!r}; 0 is off."
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def nearest(noun: str, values: Iterable[int]) -> str:
    """Returns the cure of a bad value: `the nearest widths are 32 and 48`."""
    words = [str(value) for value in values]
    verb = f"{noun} is" if len(words) == 1 else f"{noun}s are"
    return f"the nearest {verb} {' and '.join(words)}"


def nearest_multiples(noun: str, value: int, step: int) -> str:
    """Returns `nearest` for the multiples of step on both sides of value."""
    below = value // step * step
    return nearest(noun, [n for n in (below, below + step) if n])


def check_heads(width: int, head_dim: int) -> None:
    """Raises ValueError unless heads of head_dim fill the width."""
    if width % head_dim:
        raise ValueError(
            f"model.width must be a multiple of model.head_dim, got {width} and {head_dim}; "
            f"{nearest_multiples('width', width, head_dim)}."
        )
