"""Grids that source A's questions share: learning rates, sizes, and variants crossed with both.

A variant is a named setting of some fields. `VARIANTS` of a space's module says which it compares;
the figure's legend and its claims use the same names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ray import tune

RATES = [3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
"""The paper's grid without its lower end, which in short runs measures undertraining."""
SIZES = [16, 32, 64]
"""Widths at which the instability shows within seconds."""
PUBLISHED_RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
"""Source A's learning rates (section 2.2)."""
PUBLISHED_RUNGS = [(256, 3), (512, 3), (512, 6), (768, 12), (1024, 24), (2048, 24), (4096, 24)]
"""Width and depth of models from 2.4M to 4.8B parameters that fit source A's sizes (12 D^2 L)."""

Variants = Mapping[str, Mapping[str, Any]]
"""{name: {dotted field: value}}."""


def cross(
    variants: Variants,
    *,
    sizes: Iterable[int] = SIZES,
    rates: Iterable[float] = RATES,
) -> list[dict[str, Any]]:
    """Returns one part per variant: its fields x sizes x learning rates."""
    return [
        {
            **fields,
            "model.size": tune.grid_search(list(sizes)),
            "optimizer.lr": tune.grid_search(list(rates)),
        }
        for fields in variants.values()
    ]


def at_rungs(
    variants: Variants,
    *,
    rungs: Iterable[tuple[int, int]] = PUBLISHED_RUNGS,
    rates: Iterable[float] = PUBLISHED_RATES,
) -> list[dict[str, Any]]:
    """Returns one part per variant and rung: its fields at a width and a depth x learning rates."""
    return [
        {
            "model.width": width,
            "model.depth": depth,
            **fields,
            "optimizer.lr": tune.grid_search(list(rates)),
        }
        for fields in variants.values()
        for width, depth in rungs
    ]
