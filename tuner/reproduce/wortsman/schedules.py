"""How long training and warm-up are, and how large a batch: what each does to sensitivity."""

from foretune.analysis.wortsman.curves.questions import Compare, Question, TrendDifference
from foretune.search_spaces.wortsman import batch_size, steps, warmup
from foretune.tuner.reproduce.figure import Figure, FigureSweep
from foretune.tuner.reproduce.wortsman.judges import CurveJudge, lower
from foretune.tuner.reproduce.wortsman.scales import Scale, at_scales


def _warmups(scale: Scale) -> dict[str, FigureSweep]:
    return {"warmup": scale.part(warmup.variants(scale.steps))}


FIG5 = Figure(
    question="Does a longer warm-up make training less sensitive to the learning rate?",
    parts=at_scales(_warmups),
    judge=CurveJudge(
        title="Figure 5: warm-up",
        below=("sensitivity", "high_loss"),
        asks=(
            lower("sensitivity", "a longer warm-up lowers LR sensitivity"),
            lower("best_loss", "a longer warm-up lowers the loss"),
            lower("high_loss", "a longer warm-up lowers the loss"),
            TrendDifference(
                measure="sensitivity",
                expected="lower",
                finding="a longer warm-up helps the largest models most",
            ),
        ),
    ),
)


def _same_shape(finding: str) -> tuple[Question, ...]:
    return (
        Compare(measure="sensitivity", expected="same", finding=finding),
        Compare(measure="high_side", expected="same", finding=finding),
    )


def _lengths(scale: Scale) -> dict[str, FigureSweep]:
    return {"steps": scale.part(steps.variants(scale.steps), sizes=scale.few_sizes)}


FIG_E7 = Figure(
    question="Does the number of steps change the sensitivity to the learning rate?",
    parts=at_scales(_lengths),
    judge=CurveJudge(
        title="Figure E.7: number of steps",
        below=("sensitivity", "high_side"),
        asks=_same_shape("the shape of the curve does not depend on the number of steps"),
    ),
)


def _batches(scale: Scale) -> dict[str, FigureSweep]:
    """Batch sizes at equal data."""
    variants = batch_size.variants(scale.batch_size, scale.steps)
    return {"batch": scale.part(variants, sizes=scale.few_sizes)}


FIG_E9 = Figure(
    question="Does the batch size change the sensitivity to the learning rate?",
    parts=at_scales(_batches),
    judge=CurveJudge(
        title="Figure E.9: batch size",
        below=("sensitivity", "high_side"),
        asks=_same_shape("the shape of the curve does not depend on the batch size"),
    ),
)
