"""What holds the best learning rate still as models grow: muP, and rates relative to the RMS."""

from collections.abc import Mapping

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves.loss_curves import loss_curves
from foretune.analysis.wortsman.curves.questions import Compare, TrendDifference
from foretune.search_spaces.wortsman import mup, rms_scaled_lr
from foretune.tuner.reproduce.figure import Figure, FigureSweep, FigureSweeps
from foretune.tuner.reproduce.wortsman.attention_logits import logits
from foretune.tuner.reproduce.wortsman.judges import WITH, WITHOUT, CurveJudge, lower, variants_of
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales

STEADIER = TrendDifference(
    measure="best_lr", expected="steadier", finding="muP holds the best learning rate still"
)


def _parametrizations(scale: Scale, *, qk_norm: bool = True) -> dict[str, FigureSweep]:
    variants = mup.variants(scale.sizes[0], qk_norm=qk_norm)
    return {"mup" if qk_norm else "mup-bare": scale.part(variants, sizes=scale.sizes)}


FIG8 = Figure(
    question="Does muP hold the best learning rate still, and is training any stabler for it?",
    parts=at_scales(_parametrizations),
    judge=CurveJudge(
        title="Figure 8: muP",
        reference="standard",
        only=("standard", "mup-simple"),
        below=("sensitivity", "best_lr"),
        asks=(
            STEADIER,
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
    ),
)


def _with_and_without(scale: Scale) -> dict[str, FigureSweep]:
    return {**_parametrizations(scale), **_parametrizations(scale, qk_norm=False)}


NO_SUBSTITUTE = Compare(
    measure="high_loss", expected="not lower", finding="muP is no substitute for qk-layernorm"
)


def _no_substitute(records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
    """muP without qk-layernorm against itself, and against the standard form with qk-layernorm."""
    bare = {f"{name}, bare": {**f, **WITHOUT} for name, f in variants_of(parts).items()}
    title = "Figure E.4: muP without qk-layernorm"
    against = {"qk-layernorm": {"parametrization.name": "standard", **WITH}, **bare}
    return {
        "": loss_curves(records, bare, questions=[STEADIER], below=("best_lr",), title=title),
        "figE4_substitute": loss_curves(records, against, questions=[NO_SUBSTITUTE], title=title),
    }


FIG_E4 = Figure(
    question="Does muP replace qk-layernorm?",
    parts=at_scales(_with_and_without),
    judge=_no_substitute,
)
FIG_E5 = Figure(
    question="Which of muP's changes matter?",
    parts=at_scales(_parametrizations),
    judge=CurveJudge(
        title="Figure E.5: forms of muP",
        reference="standard",
        below=("sensitivity", "best_lr"),
        asks=(
            STEADIER,
            lower("high_loss", "the full muP with qk-layernorm trains at the highest rates"),
            Compare(
                measure="best_loss",
                expected="not lower",
                finding="no muP gains at the best learning rate at the largest size",
                at="the largest size",
            ),
        ),
    ),
)


def _rms_scaled(scale: Scale) -> dict[str, FigureSweep]:
    """Learning rates relative to the RMS of a tensor; the others' are figure 1's."""
    scaled = scale.part(rms_scaled_lr.SCALED, rates=rms_scaled_lr.RATES)
    return {"rms-lr": scaled, **logits(scale)}


FIG_E14 = Figure(
    question="Does a learning rate relative to each tensor's RMS hold the best rate still?",
    parts=at_scales(_rms_scaled),
    judge=CurveJudge(
        title="Figure E.14: learning rate relative to the RMS",
        reference="qk-layernorm",
        only=("learning rate x RMS", "qk-layernorm"),
        below=("best_lr",),
        asks=(
            TrendDifference(
                measure="best_lr",
                expected="steadier",
                finding="learning rates relative to the weights' RMS hold the best one still",
            ),
        ),
    ),
)
