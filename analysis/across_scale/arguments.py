"""What may be asked of a sweep: the arguments of a forecast, checked before any work."""

import math

from foretune.argument_error import Argument, ArgumentError


def check_question(
    *,
    size: float | None = None,
    n_params: float | None = None,
    lr: float | None = None,
    threshold: float | str = "auto",
    level: float = 0.9,
) -> None:
    """Raises ValueError, in one sentence, for the first argument that asks for nothing.

    `threshold` is a number (as text, too) or `auto`.
    """
    if size is not None and not _positive(size):
        raise ArgumentError(Argument("size"), f" must be positive and finite, got {size:g}.")
    if n_params is not None and not _positive(n_params):
        raise ArgumentError(
            Argument("n_params"),
            f" must be positive and finite, got {n_params:g}; count parameters "
            "without embedding and head.",
        )
    if lr is not None and not _positive(lr):
        raise ArgumentError(
            Argument("lr"), f" must be positive and finite, got {lr:g}; 1e-2 is an example."
        )
    _check_threshold(threshold)
    if not 0 < level < 1:
        raise ArgumentError(
            Argument("level"),
            f" must be above 0 and below 1, got {level:g}; 0.9 gives 90 % intervals.",
        )


def _check_threshold(threshold: float | str) -> None:
    if threshold == "auto":
        return
    try:
        value = float(threshold)
    except ValueError:
        raise ArgumentError(
            Argument("threshold"), f" must be a number or auto, got {threshold!r}."
        ) from None
    if not _positive(value):
        raise ArgumentError(
            Argument("threshold"),
            f" must be a positive number or auto, got {value:g}; 100 is usual.",
        )


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
