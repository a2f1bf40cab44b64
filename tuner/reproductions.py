"""What `foretune reproduce` can run: the sweeps behind a figure or a claim, and who judges them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis import ternary
from analysis.claims import Claim
from analysis.quantizers import quantizer_cells, quantizer_table

SCALES = ("tiny", "small", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sweep of a reproduction."""

    space: str
    """Name of the search space."""
    preset: str = "lm-tiny"
    sizes: tuple[int, ...] = ()
    """Rungs instead of the space's own."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "loss"
    """What is compared: loss, or error for images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A question of a source, the sweeps that answer it at each scale, and the judges."""

    question: str
    parts: Mapping[str, Mapping[str, Part]]
    """{scale: {name of the sweep's directory: sweep}}."""
    judge: Callable[[pd.DataFrame, str], list[Claim]]
    """Claims from the trials of one sweep and its metric."""
    table: Callable[[pd.DataFrame, str], pd.DataFrame]
    """The numbers behind them."""
    x: str = "size"
    """What the figure has on its horizontal axis: size, lr or decay."""


def _by_width(trials: pd.DataFrame, metric: str) -> list[Claim]:
    return [
        *ternary.width_claims(trials, metric=metric),
        *ternary.mean_or_median(trials, metric=metric),
    ]


def _best(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    return quantizer_table(quantizer_cells(trials, metric=metric))


LM = {"steps": 300}
LM_SMALL = {"steps": 3000, "batch_size": 64, "micro_batch_size": 64}
IMAGES = {"steps": 300, "data.augment": False, "data.validation_images": 1000}
IMAGES_SMALL = {"steps": 8000, "batch_size": 128, "micro_batch_size": 128, "data.augment": True}
RESNET, CNN = (12, 24), (8, 16)


def _vision(overrides: Mapping[str, Any], steps: int) -> dict[str, Part]:
    glyphs = {**overrides, "data.name": "glyphs", "model.classes": 100}
    return {
        "resnet-glyphs": _images("resnet-tiny", RESNET, glyphs),
        "cnn-cluttered": _images("cnn-tiny", CNN, {**overrides, "steps": steps}),
    }


def _images(preset: str, sizes: tuple[int, ...], overrides: Mapping[str, Any]) -> Part:
    return Part(
        space="ternary-vision", preset=preset, sizes=sizes, overrides=overrides, metric="error"
    )


def _lm(space: str, sizes: tuple[int, ...] = ()) -> dict[str, dict[str, Part]]:
    return {
        "tiny": {"lm": Part(space=space, overrides=LM)},
        "small": {"lm": Part(space=space, sizes=sizes, overrides=LM_SMALL)},
    }


REPRODUCTIONS: dict[str, Reproduction] = {
    "ternary-lm": Reproduction(
        question="Do language models in 1.58 bits match full precision, at which width?",
        parts=_lm("ternary-lm", (128, 192, 256)),
        judge=_by_width,
        table=_best,
    ),
    "ternary-vision": Reproduction(
        question="Do vision models in 1.58 bits match full precision at the same width?",
        parts={"tiny": _vision(IMAGES, 400), "small": _vision(IMAGES_SMALL, 8000)},
        judge=_by_width,
        table=_best,
    ),
    "ternary-lr": Reproduction(
        question="Are 1.58-bit models less sensitive to the learning rate?",
        parts=_lm("ternary-lr", (128, 256)),
        judge=lambda trials, metric: ternary.lr_claims(trials),
        table=lambda trials, metric: ternary.sensitivity_by_quantizer(trials),
        x="lr",
    ),
    "ternary-decay": Reproduction(
        question="Are 1.58-bit models less sensitive to weight decay?",
        parts=_lm("ternary-decay"),
        judge=lambda trials, metric: ternary.decay_claims(trials),
        table=lambda trials, metric: ternary.decay_table(trials),
        x="decay",
    ),
    "ternary-width": Reproduction(
        question="How much wider must a 1.58-bit language model be to match full precision?",
        parts=_lm("ternary-width", (64, 128, 256, 512)),
        judge=lambda trials, metric: [
            *ternary.needed_width_claims(trials),
            *_by_width(trials, metric),
        ],
        table=_best,
    ),
}
"""Reproductions by name."""
