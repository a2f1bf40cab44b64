"""What `foretune reproduce` can run: the sweeps behind a figure or a claim, and who judges them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis import ternary
from analysis.claims import Claim
from analysis.quantizers import quantizer_cells, quantizer_table
from search_spaces import bank
from tuner.plan import Space

SCALES = ("tiny", "small", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sweep of a reproduction."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A question of a source, the sweeps that answer it at each scale, and the judges."""

    question: str
    parts: Mapping[str, Mapping[str, Part]]
    """{scale: {name of the sweep's directory: sweep}}."""
    judge: Callable[[pd.DataFrame, str], list[Claim]] | None = None
    """Claims from the trials of one sweep and its metric."""
    table: Callable[[pd.DataFrame, str], pd.DataFrame] | None = None
    """The numbers behind them."""
    x: str = "size"
    """What the figure has on its horizontal axis: size, lr or decay."""
    freeze: bool = False
    """Whether all sweeps become one bank of records instead of claims."""


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
RESNET, CNN, VIT = (12, 24), (8, 16), (32, 64)


def _vision(overrides: Mapping[str, Any], steps: int) -> dict[str, Part]:
    glyphs = {**overrides, "data.name": "glyphs", "model.classes": 100}
    return {
        "resnet-glyphs": _images("resnet-tiny", RESNET, glyphs),
        "cnn-cluttered": _images("cnn-tiny", CNN, {**overrides, "steps": steps}),
        "vit-cluttered": _images("vit-tiny", VIT, {**overrides, "steps": 2 * steps}),
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


TELEMETRY = {"telemetry_every": 2}
BANK_RUN = {"steps": 300, **TELEMETRY}
DIGITS = {
    "data.name": "digits",
    "data.augment": False,
    "model.image_size": 8,
    "model.patch_size": 2,
}


def _bank() -> dict[str, Part]:
    lm = {
        "core": Part(space=bank.CORE, overrides=BANK_RUN),
        "edge": Part(space=bank.EDGE, overrides=BANK_RUN),
        **{
            f"random-{seed}": Part(space=space, overrides=BANK_RUN, most_seeds=1)
            for seed, space in bank.RANDOM.items()
        },
        "switches": Part(space=bank.ONE_AT_A_TIME, overrides=TELEMETRY, most_seeds=1),
        "cured": Part(space=bank.CURED, overrides=TELEMETRY, most_seeds=1),
        "text": Part(space=bank.TEXT, overrides=BANK_RUN, most_seeds=1),
        "ternary": Part(space=bank.TERNARY, overrides=BANK_RUN, most_seeds=2),
    }
    images = Part(
        space=bank.IMAGES, preset="vit-tiny", overrides={**BANK_RUN, **DIGITS}, most_seeds=2
    )
    large = Part(space=bank.LARGE, overrides=BANK_RUN, most_seeds=1)
    return {**lm, "images": images, "large": large}


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
    "bank": Reproduction(
        question="What do runs look like that will become unstable? Records to fit forecasts on.",
        parts={"tiny": _bank()},
        freeze=True,
    ),
}
"""Reproductions by name."""
