"""Rules that fields of model configs share; each message gives subject, rule, value, cure."""

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


def nearest_multiples(value: int, step: int) -> str:
    """Returns the multiples of step on both sides of value, as words: `32 and 48`."""
    below = value // step * step
    return " and ".join(str(n) for n in (below, below + step) if n)


def check_heads(width: int, head_dim: int) -> None:
    """Raises ValueError unless heads of head_dim fill the width."""
    if width % head_dim:
        raise ValueError(
            f"model.width must be a multiple of model.head_dim, got {width} and {head_dim}; the "
            f"nearest widths are {nearest_multiples(width, head_dim)}."
        )
