"""Source A's figures (Wortsman et al., arXiv 2309.14322) by name: their sweeps and their judges."""

from collections.abc import Callable

from foretune.analysis.wortsman.gradients.blocks import block_outputs
from foretune.analysis.wortsman.gradients.epsilon import epsilon_traces
from foretune.analysis.wortsman.gradients.epsilon_onset import epsilon_onset
from foretune.analysis.wortsman.gradients.gradient_traces import gradient_traces
from foretune.analysis.wortsman.gradients.gradients import gradient_scale
from foretune.analysis.wortsman.logits.alignment import logit_growth
from foretune.analysis.wortsman.logits.attention_growth import attention_traces
from foretune.analysis.wortsman.logits.logit_law import logit_law
from foretune.analysis.wortsman.logits.output_logits import output_logit_traces
from foretune.tuner.reproduce import wortsman_judges, wortsman_sweeps
from foretune.tuner.reproduce.spec import Judge, Parts, Reproduction
from foretune.tuner.reproduce.wortsman_judges import WITH, WITHOUT
from foretune.tuner.reproduce.wortsman_scales import SCALE_OF, Scale

PartsOf = Callable[[Scale], Parts]


def _figure(question: str, parts_of: PartsOf, judge: Judge) -> Reproduction:
    return Reproduction(
        question=question,
        parts={name: parts_of(scale) for name, scale in SCALE_OF.items()},
        judge=judge,
    )


def _both_muP(scale: Scale) -> Parts:
    return {
        **wortsman_sweeps.parametrizations(scale, qk_norm=True),
        **wortsman_sweeps.parametrizations(scale, qk_norm=False),
    }


def _ladders(scale: Scale) -> Parts:
    return wortsman_sweeps.ladders(scale, qk_norm=True)


def _mup(scale: Scale) -> Parts:
    return wortsman_sweeps.parametrizations(scale, qk_norm=True)


PAPER: dict[str, Reproduction] = {
    "fig1": _figure(
        "Does qk-layernorm make training less sensitive to the learning rate?",
        wortsman_sweeps.logits,
        wortsman_judges.curves("fig1", "Figure 1: qk-layernorm", reference="without qk-layernorm"),
    ),
    "fig2": _figure(
        "Do attention logits grow until training diverges, at small sizes and high rates, too?",
        wortsman_sweeps.logits,
        wortsman_judges.of_variants(attention_traces, cured="qk-layernorm"),
    ),
    "fig3": _figure(
        "Do z-loss and weight decay mend the divergence of the output logits?",
        wortsman_sweeps.outputs,
        wortsman_judges.curves("fig3", "Figure 3: z-loss and weight decay", reference="neither"),
    ),
    "fig4": _figure(
        "Do the output logits drift away at a high learning rate without z-loss and decay?",
        wortsman_sweeps.outputs,
        wortsman_judges.of_variants(output_logit_traces, reference="neither"),
    ),
    "fig5": _figure(
        "Does a longer warm-up make training less sensitive to the learning rate?",
        wortsman_sweeps.warmups,
        wortsman_judges.curves("fig5", "Figure 5: warm-up", below=("sensitivity", "high_loss")),
    ),
    "fig6": _figure(
        "Is independent weight decay less sensitive to the learning rate than the coupled form?",
        wortsman_sweeps.decay_forms,
        wortsman_judges.curves("fig6", "Figure 6: forms of weight decay", reference="coupled 0.1"),
    ),
    "fig7": _figure(
        "Does depth raise the sensitivity to the learning rate faster than width does?",
        _ladders,
        wortsman_judges.curves(
            "fig7",
            "Figure 7: depth and width",
            reference="width",
            only=("width", "depth"),
            below=("sensitivity", "best_loss"),
        ),
    ),
    "fig8": _figure(
        "Does muP hold the best learning rate still, and is training any stabler for it?",
        _mup,
        wortsman_judges.curves(
            "fig8",
            "Figure 8: muP",
            reference="standard",
            only=("standard", "mup-simple"),
            below=("sensitivity", "best_lr"),
        ),
    ),
    "fig9": _figure(
        "Can the largest attention logit, and where it becomes dangerous, be forecast from "
        "smaller models?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(logit_law, where=WITHOUT),
    ),
    "fig10": _figure(
        "How large may attention logits be before a model that is forced to have them learns "
        "worse?",
        wortsman_sweeps.kappas,
        wortsman_judges.forced,
    ),
    "fig11": _figure(
        "How does the gradient RMS fall with size and learning rate, and when does it reach "
        "AdamW's epsilon?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(gradient_scale, where=WITH),
    ),
    "fig12": _figure(
        "Does a smaller epsilon help AdamW where gradients are small?",
        wortsman_sweeps.epsilons,
        wortsman_judges.of_variants(epsilon_traces),
    ),
    "fig13": _figure(
        "Do updates shrink in the blocks whose gradients come near epsilon?",
        lambda scale: {**wortsman_sweeps.logits(scale), **wortsman_sweeps.epsilons(scale)},
        wortsman_judges.near_epsilon,
    ),
    "figC1": _figure(
        "How does the RMS of a block's output scale with size and learning rate?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(block_outputs, where=WITH),
    ),
    "figE1": _figure(
        "Do attention logits grow because queries and keys get longer, or because they align?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(logit_growth, where=WITHOUT),
    ),
    "figE2": _figure(
        "Without qk-layernorm, do models diverge at lower learning rates as they grow, on every "
        "ladder?",
        lambda scale: wortsman_sweeps.ladders(scale, qk_norm=False),
        wortsman_judges.curves("figE2", "Figure E.2: ladders without qk-layernorm"),
    ),
    "figE3": _figure(
        "Do width and depth together give the lowest loss at the largest size?",
        _ladders,
        wortsman_judges.curves(
            "figE3", "Figure E.3: width, depth, both", reference="both", below=("best_loss",)
        ),
    ),
    "figE4": _figure("Does muP replace qk-layernorm?", _both_muP, wortsman_judges.no_substitute),
    "figE5": _figure(
        "Which of muP's changes matter?",
        _mup,
        wortsman_judges.curves(
            "figE5",
            "Figure E.5: forms of muP",
            reference="standard",
            below=("sensitivity", "best_lr"),
        ),
    ),
    "figE6": _figure(
        "Should attention logits be divided by head_dim instead of its root?",
        wortsman_sweeps.head_scales,
        wortsman_judges.curves(
            "figE6",
            "Figure E.6: attention scale",
            reference="1/sqrt(head_dim)",
            below=("sensitivity", "best_loss"),
        ),
    ),
    "figE7": _figure(
        "Does the number of steps change the sensitivity to the learning rate?",
        wortsman_sweeps.lengths,
        wortsman_judges.curves(
            "figE7", "Figure E.7: number of steps", below=("sensitivity", "high_side")
        ),
    ),
    "figE8": _figure(
        "Is qk-layernorm better per head or over the whole width?",
        wortsman_sweeps.spans,
        wortsman_judges.curves(
            "figE8",
            "Figure E.8: span of qk-layernorm",
            reference="whole width",
            below=("sensitivity", "best_loss"),
        ),
    ),
    "figE9": _figure(
        "Does the batch size change the sensitivity to the learning rate?",
        wortsman_sweeps.batches,
        wortsman_judges.curves(
            "figE9", "Figure E.9: batch size", below=("sensitivity", "high_side")
        ),
    ),
    "figE10": _figure(
        "How does the best learning rate move with independent weight decay?",
        wortsman_sweeps.decay_values,
        wortsman_judges.curves(
            "figE10", "Figure E.10: weight decay", below=("sensitivity", "best_lr")
        ),
    ),
    "figE11": _figure(
        "Do attention logits become unstable without a softmax, too?",
        wortsman_sweeps.pointwise,
        wortsman_judges.curves(
            "figE11", "Figure E.11: squared-ReLU attention", reference="qk-layernorm"
        ),
    ),
    "figE12": _figure(
        "Do the gradients of queries, keys and values fall as those of figure 11 do?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(gradient_scale, kind="qkv", where=WITH, name="Figure E.12"),
    ),
    "figE13": _figure(
        "Do updates shrink where gradients come near epsilon, over sizes and learning rates?",
        wortsman_sweeps.logits,
        wortsman_judges.of_runs(
            gradient_traces, lrs=(1e-2, 1e-1, 3e-1), where=WITH, name="Figure E.13"
        ),
    ),
    "figE14": _figure(
        "Does a learning rate relative to each tensor's RMS hold the best rate still?",
        wortsman_sweeps.rms_scaled,
        wortsman_judges.curves(
            "figE14",
            "Figure E.14: learning rate relative to the RMS",
            reference="qk-layernorm",
            only=("learning rate x RMS", "qk-layernorm"),
            below=("best_lr",),
        ),
    ),
    "figE15": _figure(
        "Does a larger epsilon make training diverge?",
        wortsman_sweeps.epsilons,
        wortsman_judges.of_variants(
            epsilon_traces, only=("1e-8", "1e-6", "1e-4", "1e-3"), name="Figure E.15"
        ),
    ),
    "epsilon-onset": Reproduction(
        question="At which share of the gradient RMS does AdamW's epsilon cost loss, and at which "
        "size is the usual one that large?",
        parts={name: wortsman_sweeps.more_epsilons(SCALE_OF[name]) for name in ("tiny", "small")},
        judge=wortsman_judges.of_variants(
            epsilon_onset, only=("1e-8", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2")
        ),
        missing="source A's own models reach it, see fig12.",
    ),
    "interventions": Reproduction(
        question="Which interventions lower the sensitivity to the learning rate, at what loss?",
        parts={
            name: wortsman_sweeps.every_intervention(SCALE_OF[name]) for name in ("tiny", "small")
        },
        judge=wortsman_judges.table_of_interventions,
        missing="source A has no such table, and its preset has two of them on already.",
    ),
}
"""Source A's figures, and every intervention in one table."""
