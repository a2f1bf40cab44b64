"""What source A found in each of its figures of curves, as questions to the runs.

Variants come in the order of the figure; the reference is what the others are compared with.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from foretune.analysis.wortsman.curves.questions import (
    Compare,
    Extrapolate,
    Question,
    Trend,
    TrendDifference,
)

LESS_SENSITIVE: Final = Compare(
    measure="sensitivity", expected="lower", finding="the intervention lowers LR sensitivity"
)


def _lower(measure: str, finding: str) -> Compare:
    return Compare(measure=measure, expected="lower", finding=finding)


def _same_shape(finding: str) -> tuple[Question, ...]:
    return (
        Compare(measure="sensitivity", expected="same", finding=finding),
        Compare(measure="high_side", expected="same", finding=finding),
    )


GROWS: Final = (
    Trend(measure="sensitivity", expected="higher", finding="LR sensitivity grows with N"),
    Trend(
        measure="high_side",
        expected="higher",
        finding="LR sensitivity grows with N (short runs show it from the best learning rate up)",
    ),
)
EARLIER: Final = "without qk-layernorm models diverge at lower learning rates as N grows"
STEADIER: Final = (
    TrendDifference(
        measure="best_lr", expected="steadier", finding="muP holds the best learning rate still"
    ),
)
QUESTIONS: Final[Mapping[str, tuple[Question, ...]]] = MappingProxyType(
    {
        "fig1": (
            _lower("sensitivity", "qk-layernorm lowers LR sensitivity"),
            _lower("high_side", "qk-layernorm lowers LR sensitivity"),
            _lower("high_loss", "with qk-layernorm high learning rates train"),
            *GROWS,
            Trend(measure="best_lr", expected="lower", finding=EARLIER, of="the reference"),
        ),
        "fig3": (
            _lower("sensitivity", "z-loss or decay mends the divergence of the output logits"),
            _lower("high_loss", "z-loss or decay mends the divergence of the output logits"),
        ),
        "fig5": (
            _lower("sensitivity", "a longer warm-up lowers LR sensitivity"),
            _lower("best_loss", "a longer warm-up lowers the loss"),
            _lower("high_loss", "a longer warm-up lowers the loss"),
            TrendDifference(
                measure="sensitivity",
                expected="lower",
                finding="a longer warm-up helps the largest models most",
            ),
        ),
        "fig6": (
            _lower("sensitivity", "independent decay is less sensitive to the learning rate"),
            _lower("best_loss", "independent decay is less sensitive, at no cost"),
        ),
        "fig7": (
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
        "fig8": (
            *STEADIER,
            Compare(
                measure="best_loss",
                expected="not lower",
                finding="muP gives no better loss at the largest size",
                at="the largest size",
            ),
            Compare(
                measure="sensitivity", expected="not lower", finding="muP lowers no LR sensitivity"
            ),
        ),
        "figE2": (*GROWS, Trend(measure="best_lr", expected="lower", finding=EARLIER)),
        "figE3": (
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
        "figE4": (
            *STEADIER,
            Compare(
                measure="high_loss",
                expected="not lower",
                finding="muP is no substitute for qk-layernorm",
            ),
        ),
        "figE5": (
            *STEADIER,
            _lower("high_loss", "the full muP with qk-layernorm trains at the highest rates"),
            Compare(
                measure="best_loss",
                expected="not lower",
                finding="no muP gains at the best learning rate at the largest size",
                at="the largest size",
            ),
        ),
        "figE6": (
            Compare(
                measure="best_loss",
                expected="lower",
                finding="scaling by 1/head_dim gains a little at the smallest size",
                at="the smallest size",
            ),
            Compare(
                measure="best_loss",
                expected="higher",
                finding="scaling by 1/head_dim loses at the largest size",
                at="the largest size",
            ),
        ),
        "figE7": _same_shape("the shape of the curve does not depend on the number of steps"),
        "figE8": (
            _lower("best_loss", "qk-layernorm per head is slightly better than over the width"),
            _lower("sensitivity", "qk-layernorm per head is slightly better than over the width"),
        ),
        "figE9": _same_shape("the shape of the curve does not depend on the batch size"),
        "figE10": (
            Compare(
                measure="best_lr",
                expected="higher",
                finding="more decay moves the best learning rate slightly up",
            ),
        ),
        "figE11": (
            Compare(
                measure="high_loss",
                expected="higher",
                finding="attention without softmax suffers from growing logits, too, and "
                "qk-layernorm mends it",
            ),
            *GROWS[:1],
        ),
        "figE14": (
            TrendDifference(
                measure="best_lr",
                expected="steadier",
                finding="learning rates relative to the weights' RMS hold the best one still",
            ),
        ),
    }
)
"""The questions of each figure, by its name."""
