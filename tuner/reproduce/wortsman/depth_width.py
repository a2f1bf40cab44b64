"""Depth against width: which raises the sensitivity to the learning rate, which lowers the loss."""

from functools import partial

from foretune.analysis.wortsman.curves.questions import (
    GROWS,
    Compare,
    Extrapolate,
    Trend,
    TrendDifference,
)
from foretune.search_spaces.wortsman import depth_width
from foretune.tuner.reproduce.figure import Figure, FigureSweep
from foretune.tuner.reproduce.wortsman.attention_logits import EARLIER
from foretune.tuner.reproduce.wortsman.judges import CurveJudge
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales


def _ladders(scale: Scale, *, qk_norm: bool = True) -> dict[str, FigureSweep]:
    """Width, depth and both."""
    space = depth_width.ladders(
        sizes=scale.sizes,
        width=scale.few_sizes[0],
        depths=scale.depths,
        rates=scale.rates,
        qk_norm=qk_norm,
    )
    return {"ladders" if qk_norm else "ladders-bare": scale.of(space, depth_width.VARIANTS)}


FIG7 = Figure(
    question="Does depth raise the sensitivity to the learning rate faster than width does?",
    parts=at_scales(_ladders),
    judge=CurveJudge(
        title="Figure 7: depth and width",
        reference="width",
        only=("width", "depth"),
        below=("sensitivity", "best_loss"),
        asks=(
            TrendDifference(
                measure="sensitivity",
                expected="higher",
                finding="depth raises LR sensitivity faster than width does",
            ),
            Compare(
                measure="best_loss",
                expected="lower",
                finding="depth gives a lower loss than width at the largest scale",
                at="equal N",
            ),
            *GROWS,
        ),
    ),
)
FIG_E2 = Figure(
    question="Without qk-layernorm, do models diverge at lower learning rates as they grow, on "
    "every ladder?",
    parts=at_scales(partial(_ladders, qk_norm=False)),
    judge=CurveJudge(
        title="Figure E.2: ladders without qk-layernorm",
        asks=(*GROWS, Trend(measure="best_lr", expected="lower", finding=EARLIER)),
    ),
)
FIG_E3 = Figure(
    question="Do width and depth together give the lowest loss at the largest size?",
    parts=at_scales(_ladders),
    judge=CurveJudge(
        title="Figure E.3: width, depth, both",
        reference="both",
        below=("best_loss",),
        asks=(
            Compare(
                measure="best_loss",
                expected="higher",
                finding="width and depth together give the lowest loss at the largest scale",
                at="equal N",
            ),
            Extrapolate(
                measure="best_loss",
                finding="width and depth together extrapolate best from smaller sizes",
            ),
        ),
    ),
)
