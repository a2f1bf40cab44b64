"""Output logits drift away at high learning rates, and what z-loss and weight decay do about it."""

from foretune.analysis.wortsman.logits.output_logits import output_logit_traces
from foretune.search_spaces.wortsman import z_loss
from foretune.tuner.reproduce.figure import Figure, FigureSweep
from foretune.tuner.reproduce.wortsman.judges import CurveJudge, lower, of_variants
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales


def outputs(scale: Scale) -> dict[str, FigureSweep]:
    """z-loss x decay."""
    return {"outputs": scale.part(z_loss.VARIANTS, **scale.detail)}


FIG3 = Figure(
    question="Do z-loss and weight decay mend the divergence of the output logits?",
    parts=at_scales(outputs),
    judge=CurveJudge(
        title="Figure 3: z-loss and weight decay",
        reference="neither",
        asks=(
            lower("sensitivity", "z-loss or decay mends the divergence of the output logits"),
            lower("high_loss", "z-loss or decay mends the divergence of the output logits"),
        ),
    ),
)
FIG4 = Figure(
    question="Do the output logits drift away at a high learning rate without z-loss and decay?",
    parts=at_scales(outputs),
    judge=of_variants(output_logit_traces, reference="neither"),
)
