"""Gradients that fall with size and rate until they meet AdamW's epsilon, and updates shrink."""

from collections.abc import Mapping

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.gradients.blocks import block_outputs
from foretune.analysis.wortsman.gradients.epsilon import epsilon_traces
from foretune.analysis.wortsman.gradients.epsilon_onset import epsilon_onset
from foretune.analysis.wortsman.gradients.gradient_traces import gradient_traces
from foretune.analysis.wortsman.gradients.gradients import gradient_scale
from foretune.search_spaces.wortsman import epsilon
from foretune.tuner.reproduce.figure import Figure, FigureSweep, FigureSweeps
from foretune.tuner.reproduce.wortsman.attention_logits import logits
from foretune.tuner.reproduce.wortsman.judges import WITH, of_runs, of_variants
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales

LARGER = 1e-4
"""An epsilon of figure 12's that stands in for the usual one in models with large gradients."""


def epsilons(scale: Scale) -> dict[str, FigureSweep]:
    """AdamW's epsilon."""
    return {"epsilon": scale.part(epsilon.VARIANTS, **scale.detail)}


FIG11 = Figure(
    question="How does the gradient RMS fall with size and learning rate, and when does it reach "
    "AdamW's epsilon?",
    parts=at_scales(logits),
    judge=of_runs(gradient_scale, where=WITH),
)
FIG12 = Figure(
    question="Does a smaller epsilon help AdamW where gradients are small?",
    parts=at_scales(epsilons),
    judge=of_variants(epsilon_traces),
)


def _logits_and_epsilons(scale: Scale) -> dict[str, FigureSweep]:
    return {**logits(scale), **epsilons(scale)}


def _near_epsilon(records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
    """At AdamW's usual epsilon, and at one that small models' gradients reach."""
    usual = {"logits": records["logits"]}
    larger = {"epsilon": records["epsilon"]}
    return {
        "": gradient_traces(usual, where=WITH),
        "fig13_larger_epsilon": gradient_traces(
            larger, where={"optimizer.epsilon": LARGER}, name=f"Figure 13 at epsilon {LARGER:g}"
        ),
    }


FIG13 = Figure(
    question="Do updates shrink in the blocks whose gradients come near epsilon?",
    parts=at_scales(_logits_and_epsilons),
    judge=_near_epsilon,
)
FIG_C1 = Figure(
    question="How does the RMS of a block's output scale with size and learning rate?",
    parts=at_scales(logits),
    judge=of_runs(block_outputs, where=WITH),
)
FIG_E12 = Figure(
    question="Do the gradients of queries, keys and values fall as those of figure 11 do?",
    parts=at_scales(logits),
    judge=of_runs(gradient_scale, kind="qkv", where=WITH, name="Figure E.12"),
)
FIG_E13 = Figure(
    question="Do updates shrink where gradients come near epsilon, over sizes and learning rates?",
    parts=at_scales(logits),
    judge=of_runs(gradient_traces, lrs=(1e-2, 1e-1, 3e-1), where=WITH, name="Figure E.13"),
)
FIG_E15 = Figure(
    question="Does a larger epsilon make training diverge?",
    parts=at_scales(epsilons),
    judge=of_variants(epsilon_traces, only=("1e-8", "1e-6", "1e-4", "1e-3"), name="Figure E.15"),
)


def _more_epsilons(scale: Scale) -> dict[str, FigureSweep]:
    """Those of figure 12, and some between and beyond."""
    more = scale.part(epsilon.MORE_VARIANTS, **scale.detail)
    return {**epsilons(scale), "epsilon-more": more}


EPSILON_ONSET = Figure(
    question="At which share of the gradient RMS does AdamW's epsilon cost loss, and at which "
    "size is the usual one that large?",
    parts=at_scales(_more_epsilons, "tiny", "small"),
    judge=of_variants(epsilon_onset, only=("1e-8", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2")),
    missing="source A's own models reach it, see fig12.",
)
