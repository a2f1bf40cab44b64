"""Search spaces as data: {dotted field of a Run: Ray Tune domain}, a file per question asked."""

from search_spaces import lr, random_lr

SPACES = {"lr": lr, "random-lr": random_lr}
"""Spaces by name: modules with SPACE; the first paragraph of a docstring is the question."""

__all__ = ["SPACES"]
