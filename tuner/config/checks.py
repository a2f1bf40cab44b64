"""Rules that a field's value must keep, each in one sentence: subject, rule, value, cure."""

import math

from foretune.tuner.config.override import near


def check_number(path: str, value: object, *, low: float, open_low: bool = False) -> None:
    """ValueError unless value is a finite number of at least low (above it with open_low)."""
    # Not numpy's: torch refuses to load them from a checkpoint, and their repr is another run's.
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{path} must be a finite number, got {value!r}; write it like 3e-3.")
    if value < low or (open_low and value == low):  # type: ignore[operator]
        rule = f"above {low:g}" if open_low else f"{low:g} or more"
        raise ValueError(f"{path} must be {rule}, got {value!r}.")


def check_below_one(path: str, value: float) -> None:
    """ValueError unless value is a number from 0 to below 1."""
    check_number(path, value, low=0.0)
    if value >= 1:
        raise ValueError(f"{path} must be below 1, got {value!r}.")


def check_whole(path: str, value: object, *, low: int) -> None:
    """ValueError unless value is a whole number of at least low."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{path} must be a whole number, got {value!r}.")
    if value < low:
        raise ValueError(f"{path} must be {low} or more, got {value}.")


def check_one_of(path: str, value: object, names: tuple[str, ...]) -> None:
    """ValueError unless value is one of names; it suggests the nearest."""
    if value not in names:
        raise ValueError(
            f"{path} must be one of {', '.join(names)}, got {value!r}.{near(str(value), names)}"
        )


def check_flag(path: str, value: object) -> None:
    """ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{path} must be True or False, got {value!r}.")
