"""The three scales at which source A's figures can be run: what a sweep has at each of them.

`tiny` takes minutes on two CPU cores; `small` is meant for one GPU and an hour; `paper` is the
published setting, which needs C4 and a cluster.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from foretune.search_spaces.grids import (
    PUBLISHED_RATES,
    PUBLISHED_RUNGS,
    RATES,
    SIZES,
    Variants,
    at_rungs,
    cross,
)
from foretune.search_spaces.wortsman import attention_logits
from foretune.tuner.reproduce.figure import FigureSweep, FigureSweeps

DETAIL = {"telemetry_every": 5, "telemetry_detail": True}
"""Telemetry of sweeps whose figures show layers or traces; at `paper` every hundredth step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What every sweep of a figure shares at one scale."""

    preset: str
    steps: int
    batch_size: int
    sizes: tuple[int, ...]
    """Widths, the smallest the base width of muP."""
    few_sizes: tuple[int, ...]
    """Those of questions about other axes than size."""
    law_sizes: tuple[int, ...] = ()
    """Widths that laws in N are fitted to, where those are more than `sizes`."""
    images: str = ""
    """Preset of the image transformer that is asked the same, where there is one."""
    depths: tuple[int, ...]
    """Rungs of the depth ladder, at a width of few_sizes."""
    head_dim: int
    sequence_length: int
    rates: tuple[float, ...] = tuple(RATES)
    rungs: tuple[tuple[int, int], ...] = ()
    """Widths and depths that replace `sizes` where a figure's axis is N."""
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def detail(self) -> dict[str, Any]:
        """Telemetry of layers, at most a thousand times a run."""
        return {**DETAIL, "telemetry_every": max(5, self.steps // 1000)}

    def part(
        self,
        variants: Variants,
        *,
        sizes: Iterable[int] = (),
        rates: Iterable[float] = (),
        **overrides: Any,
    ) -> FigureSweep:
        """Returns the sweep of variants x sizes x learning rates; sizes replace the scale's own."""
        chosen, rates = tuple(sizes), tuple(rates) or self.rates
        if self.rungs and not chosen:
            space = at_rungs(variants, rungs=self.rungs, rates=rates)
        else:
            space = cross(variants, sizes=chosen or self.sizes, rates=rates)
        return self.of(space, variants, **overrides)

    def of(self, space: Any, variants: Variants, **overrides: Any) -> FigureSweep:
        """Returns the sweep of a space at this scale's length; a space's own steps win."""
        parts = [space] if isinstance(space, Mapping) else space
        own = {path for part in parts for path in part}
        fixed = {"steps": self.steps, **self.overrides, **overrides}
        return FigureSweep(
            space=space,
            preset=self.preset,
            overrides={path: value for path, value in fixed.items() if path not in own},
            variants=variants,
        )


TINY = Scale(
    preset="lm-tiny",
    steps=300,
    batch_size=8,
    sizes=tuple(SIZES),
    law_sizes=tuple(attention_logits.SIZES),
    images="vit-tiny",
    few_sizes=(32, 64),
    depths=(1, 3, 6, 12),
    head_dim=16,
    sequence_length=64,
)
SMALL = Scale(
    preset="lm-tiny",
    steps=2000,
    batch_size=64,
    sizes=(64, 128, 256, 512),
    images="vit-tiny",
    few_sizes=(128, 256),
    depths=(3, 6, 12, 24),
    head_dim=32,
    sequence_length=256,
    rates=tuple(PUBLISHED_RATES[1:]),
    overrides={
        "batch_size": 64,
        "micro_batch_size": 64,
        "model.head_dim": 32,
        "model.max_positions": 256,
        "data.sequence_length": 256,
    },
)
PUBLISHED = Scale(
    preset="lm-paper",
    steps=100_000,
    batch_size=256,
    sizes=(256, 512, 1024, 2048),
    few_sizes=(512, 1024),
    depths=(3, 6, 12, 24),
    head_dim=64,
    sequence_length=512,
    rates=tuple(PUBLISHED_RATES),
    rungs=tuple(PUBLISHED_RUNGS),
)
SCALE_OF = {"tiny": TINY, "small": SMALL, "paper": PUBLISHED}
"""Scales by name."""


def at_scales(sweeps: Callable[[Scale], FigureSweeps], *names: str) -> dict[str, FigureSweeps]:
    """Returns a figure's sweeps at the scales of these names, at all where none is given."""
    return {name: sweeps(SCALE_OF[name]) for name in names or SCALE_OF}
