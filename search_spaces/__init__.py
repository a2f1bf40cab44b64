"""Search spaces as data: {dotted field of a Run: Ray Tune domain}, a file per question asked.

A space may be a list of such dicts, of which a sweep runs all: so the domains of one field can
depend on the value of another.
"""

from search_spaces import (
    lr,
    random_lr,
    ternary_decay,
    ternary_grid,
    ternary_lm,
    ternary_lr,
    ternary_random,
    ternary_vision,
    ternary_width,
)

SPACES = {
    "lr": lr,
    "random-lr": random_lr,
    "ternary-lm": ternary_lm,
    "ternary-vision": ternary_vision,
    "ternary-lr": ternary_lr,
    "ternary-decay": ternary_decay,
    "ternary-width": ternary_width,
    "ternary-grid": ternary_grid,
    "ternary-random": ternary_random,
}
"""Spaces by name: modules with SPACE, and PRESET where lm-tiny isn't what it is about; the first
paragraph of a docstring is the question."""

__all__ = ["SPACES"]
