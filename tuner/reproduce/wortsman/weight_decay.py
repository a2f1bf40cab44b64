"""Weight decay: independent of the learning rate or coupled to it, and how much."""

from foretune.analysis.wortsman.curves.questions import Compare
from foretune.search_spaces.wortsman import weight_decay
from foretune.tuner.reproduce.figure import Figure, FigureSweep
from foretune.tuner.reproduce.wortsman.judges import CurveJudge, lower
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales


def decay_forms(scale: Scale) -> dict[str, FigureSweep]:
    """Independent and coupled decay."""
    return {"decay-forms": scale.part(weight_decay.FORMS)}


FIG6 = Figure(
    question="Is independent weight decay less sensitive to the learning rate than the coupled "
    "form?",
    parts=at_scales(decay_forms),
    judge=CurveJudge(
        title="Figure 6: forms of weight decay",
        reference="coupled 0.1",
        asks=(
            lower("sensitivity", "independent decay is less sensitive to the learning rate"),
            lower("best_loss", "independent decay is less sensitive, at no cost"),
        ),
    ),
)


def _decay_values(scale: Scale) -> dict[str, FigureSweep]:
    return {"decay-values": scale.part(weight_decay.VALUES, sizes=scale.few_sizes)}


FIG_E10 = Figure(
    question="How does the best learning rate move with independent weight decay?",
    parts=at_scales(_decay_values),
    judge=CurveJudge(
        title="Figure E.10: weight decay",
        below=("sensitivity", "best_lr"),
        asks=(
            Compare(
                measure="best_lr",
                expected="higher",
                finding="more decay moves the best learning rate slightly up",
            ),
        ),
    ),
)
