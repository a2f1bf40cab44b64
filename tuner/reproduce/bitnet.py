"""The sweeps behind source B's claims (1.58 bits), and their judges."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from foretune.analysis.claims import bitnet_claims
from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.format_cells import quantizer_cells, quantizer_table
from foretune.analysis.figures.format_figure import quantizer_figure
from foretune.analysis.records.load import Records
from foretune.tuner.reproduce.figure import Figure, FigureJudge, FigureSweep, FigureSweeps

SILENT = "the source's abstract gives neither its architectures nor its settings."

Table = Callable[[pd.DataFrame, str], pd.DataFrame]
Claims = Callable[[pd.DataFrame, str], list[Claim]]


def _each(table: Table, claims: Claims, *, x: str = "size") -> FigureJudge:
    """Returns a judge that answers for every part by itself; x is the figure's horizontal axis."""

    def judge(records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
        answers = {}
        for label, part in parts.items():
            trials = records[label].trials
            figure = quantizer_figure(trials, x=x, metric=part.metric)
            answers[label] = Answer(table(trials, part.metric), claims(trials, part.metric), figure)
        return answers

    return judge


def _by_width(trials: pd.DataFrame, metric: str) -> list[Claim]:
    return [
        *bitnet_claims.width_claims(trials, metric=metric),
        *bitnet_claims.mean_or_median(trials, metric=metric),
    ]


def _needed_width(trials: pd.DataFrame, metric: str) -> list[Claim]:
    return [*bitnet_claims.needed_width_claims(trials), *_by_width(trials, metric)]


def _best(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    return quantizer_table(quantizer_cells(trials, metric=metric))


LM = {"steps": 300}
LM_SMALL = {"steps": 3000, "batch_size": 64, "micro_batch_size": 64}


def _language(
    question: str,
    space: str,
    judge: FigureJudge,
    sizes: tuple[int, ...] = (),
) -> Figure:
    """Returns a claim about language models; `sizes` are those of `small`."""
    tiny = {"lm": FigureSweep(space=space, overrides=LM)}
    small = {"lm": FigureSweep(space=space, sizes=sizes, overrides=LM_SMALL)}
    return Figure(
        question=question, parts={"tiny": tiny, "small": small}, missing=SILENT, judge=judge
    )


IMAGES = {"steps": 300, "data.augment": False, "data.validation_images": 1000}
IMAGES_SMALL = {"steps": 8000, "batch_size": 128, "micro_batch_size": 128, "data.augment": True}
RESNET, CNN, VIT = (12, 24), (8, 16), (32, 64)


def _vision(overrides: Mapping[str, Any], steps: int) -> dict[str, FigureSweep]:
    glyphs = {**overrides, "data.name": "glyphs", "model.classes": 100}
    return {
        "resnet-glyphs": _images("resnet-tiny", RESNET, glyphs),
        "cnn-cluttered": _images("cnn-tiny", CNN, {**overrides, "steps": steps}),
        "vit-cluttered": _images("vit-tiny", VIT, {**overrides, "steps": 2 * steps}),
    }


def _images(preset: str, sizes: tuple[int, ...], overrides: Mapping[str, Any]) -> FigureSweep:
    return FigureSweep(
        space="ternary-vision", preset=preset, sizes=sizes, overrides=overrides, metric="error"
    )


LANGUAGE = _language(
    "Do language models in 1.58 bits match full precision, at which width?",
    "ternary-lm",
    _each(_best, _by_width),
    sizes=(128, 192, 256),
)
VISION = Figure(
    question="Do vision models in 1.58 bits match full precision at the same width?",
    parts={"tiny": _vision(IMAGES, 400), "small": _vision(IMAGES_SMALL, 8000)},
    missing=SILENT,
    judge=_each(_best, _by_width),
)
RATE = _language(
    "Are 1.58-bit models less sensitive to the learning rate?",
    "ternary-lr",
    _each(
        lambda trials, metric: bitnet_claims.sensitivity_by_quantizer(trials),
        lambda trials, metric: bitnet_claims.lr_claims(trials),
        x="lr",
    ),
    sizes=(128, 256),
)
DECAY = _language(
    "Are 1.58-bit models less sensitive to weight decay?",
    "ternary-decay",
    _each(
        lambda trials, metric: bitnet_claims.decay_table(trials),
        lambda trials, metric: bitnet_claims.decay_claims(trials),
        x="decay",
    ),
)
WIDTH = _language(
    "How much wider must a 1.58-bit language model be to match full precision?",
    "ternary-width",
    _each(_best, _needed_width),
    sizes=(64, 128, 256, 512),
)
