"""What a figure is: its question, the sweeps that answer it at each scale, and their judge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.search_spaces.grids import Variants
from foretune.tuner.planning.spaces import Space

SCALES = ("tiny", "small", "paper")
DIGITS = {
    "data.name": "digits",
    "data.augment": False,
    "model.image_size": 8,
    "model.patch_size": 2,
}
"""What makes an image preset read scikit-learn's digits, 8 x 8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSweep:
    """One sweep of a figure."""

    space: str | Space
    """The search space, or the name of one."""
    preset: str = "lm-tiny"
    sizes: tuple[int, ...] = ()
    """Rungs instead of the space's own."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "loss"
    """What is compared: loss, or error for images."""
    most_seeds: int = 0
    """More seeds than this aren't run; 0 for no such limit."""
    variants: Variants = field(default_factory=dict)
    """The settings that the sweep compares: {name: {dotted field: value}}."""


FigureSweeps = Mapping[str, FigureSweep]
"""{name of the sweep's directory: sweep}; figures that share a sweep give it the same name."""
FigureJudge = Callable[[Mapping[str, Records], FigureSweeps], Mapping[str, Answer]]
"""(records by part, parts) -> answers by the name of their files; empty is the figure's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure or a claim of a source: its question, its sweeps at each scale, and their judge."""

    question: str
    parts: Mapping[str, FigureSweeps]
    """{scale: parts}."""
    judge: FigureJudge | None = None
    missing: str = ""
    """Why there are scales without parts."""
    freeze: bool = False
    """Whether all sweeps become one bank of records instead of answers."""
