"""Rules that fields of model configs share; each message gives subject, rule, value, cure."""

import math
from collections.abc import Iterable


def check_whole(config: object, names: Iterable[str]) -> None:
    """Raises ValueError unless each named field is a whole number from 1 up."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"model.{name} must be a whole number from 1 up, got {value!r}.")


def check_flag(config: object, name: str) -> None:
    """Raises ValueError unless the named field is True or False."""
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise ValueError(f"model.{name} must be True or False, got {value!r}.")


def check_positive(config: object, name: str) -> None:
    """Raises ValueError unless the named field is a finite number above 0."""
    value = getattr(config, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"model.{name} must be a finite number above 0, got {value!r}.")


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
