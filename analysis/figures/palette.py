"""Colours and line styles that all figures share."""

from collections.abc import Sequence
from typing import Final

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

FAMILY_STYLES: Final = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))


FAMILY_INKS: Final = ("#c2571a", "#1f6f8b", "#6b4c9a", "#5b7f2b")


def size_colours(sizes: Sequence[float]) -> dict[float, str]:
    """One colour per size, in the order of the sizes."""
    ordered = sorted(set(sizes))
    places = np.linspace(0.08, 0.82, len(ordered)) if len(ordered) > 1 else [0.35]
    ramp = matplotlib.colormaps["viridis"]
    return {size: to_hex(ramp(place)) for size, place in zip(ordered, places, strict=True)}
