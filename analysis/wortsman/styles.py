"""Colours and line styles of source A's variants and learning rates."""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from foretune.analysis.figures.palette import FAMILY_INKS, FAMILY_STYLES

PARAMETERS: Final = "parameters without embedding and head"


MORE_INKS: Final = ("#b03060", "#8a6d00", "#444444", "#009e8e")


Style = tuple[str, str, str]
"""Colour, marker, line."""


def variant_styles(variants: Sequence[str]) -> dict[str, Style]:
    """One colour, marker and line per variant."""
    inks = islice(cycle((*FAMILY_INKS, *MORE_INKS)), len(variants))
    return {
        v: (ink, *FAMILY_STYLES[index % len(FAMILY_STYLES)])
        for index, (v, ink) in enumerate(zip(variants, inks, strict=True))
    }


def rate_colours(rates: Sequence[float]) -> dict[float, str]:
    """One colour per learning rate: dark for low, bright for high."""
    ramp, places = matplotlib.colormaps["plasma"], np.linspace(0.0, 0.85, len(rates))
    return {lr: to_hex(ramp(place)) for lr, place in zip(rates, places, strict=True)}
