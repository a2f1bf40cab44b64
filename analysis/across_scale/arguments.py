"""What may be asked of a sweep: the arguments of a forecast, checked before any work."""

import math


def check_question(
    *,
    size: float | None = None,
    n_params: float | None = None,
    lr: float | None = None,
    threshold: float | str = "auto",
    level: float = 0.9,
    dashes: str = "",
) -> None:
    """Raises ValueError, in one sentence, for the first argument that asks for nothing.

    `threshold` is a number (as text, too) or `auto`. `dashes` goes before the argument's name:
    `--` for a command line.
    """
    if size is not None and not _positive(size):
        raise ValueError(f"{dashes}size must be positive and finite, got {size:g}.")
    if n_params is not None and not _positive(n_params):
        raise ValueError(
            f"{dashes}n_params must be positive and finite, got {n_params:g}; count parameters "
            "without embedding and head."
        )
    if lr is not None and not _positive(lr):
        raise ValueError(f"{dashes}lr must be positive and finite, got {lr:g}; 1e-2 is an example.")
    _check_threshold(threshold, dashes)
    if not 0 < level < 1:
        raise ValueError(
            f"{dashes}level must be above 0 and below 1, got {level:g}; 0.9 gives 90 % intervals."
        )


def _check_threshold(threshold: float | str, dashes: str) -> None:
    if threshold == "auto":
        return
    try:
        value = float(threshold)
    except ValueError:
        raise ValueError(
            f"{dashes}threshold must be a number or auto, got {threshold!r}."
        ) from None
    if not _positive(value):
        raise ValueError(
            f"{dashes}threshold must be a positive number or auto, got {value:g}; 100 is usual."
        )


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
