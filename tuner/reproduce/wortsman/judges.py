"""How answers to source A's figures are drawn from records, where several figures do it alike.

A judge is given the records of every sweep of a figure, and the sweeps; see
`tuner.reproduce.figure.FigureJudge`. The drawing itself is in `analysis.wortsman`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.curves.loss_curves import loss_curves
from foretune.analysis.wortsman.curves.questions import Compare, Question
from foretune.analysis.wortsman.runs import Variants
from foretune.tuner.reproduce.figure import FigureJudge, FigureSweeps

WITHOUT, WITH = {"model.qk_norm": False}, {"model.qk_norm": True}


def variants_of(parts: FigureSweeps, only: Sequence[str] = ()) -> Variants:
    """Returns what a figure's sweeps compare: all of it, or the variants of these names."""
    found = {name: fields for part in parts.values() for name, fields in part.variants.items()}
    return {name: found[name] for name in only or found}


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveJudge:
    """The judge of a figure of loss against learning rate."""

    title: str
    asks: tuple[Question, ...]
    """What the source found, as questions to the runs."""
    reference: str = ""
    """The variant that the others are compared with; the first unless given."""
    only: tuple[str, ...] = ()
    """Variants that are shown, in this order, where those aren't all."""
    below: tuple[str, ...] = ("sensitivity",)
    """Measures that are drawn against N."""

    def __call__(self, records: Mapping[str, Records], parts: FigureSweeps) -> dict[str, Answer]:
        """Returns the figure's one answer."""
        answer = loss_curves(
            records,
            variants_of(parts, self.only),
            questions=self.asks,
            reference=self.reference,
            below=self.below,
            title=self.title,
        )
        return {"": answer}


def lower(measure: str, finding: str) -> Compare:
    """Returns the question whether a number is lower than the reference's at every size."""
    return Compare(measure=measure, expected="lower", finding=finding)


def of_variants(
    judge: Callable[..., Answer], only: Sequence[str] = (), **settings: Any
) -> FigureJudge:
    """Returns the judge of a figure of traces of a sweep's variants."""
    return lambda records, parts: {"": judge(records, variants_of(parts, only), **settings)}


def of_runs(judge: Callable[..., Answer], **settings: Any) -> FigureJudge:
    """Returns the judge of a figure of the runs of one family."""
    return lambda records, parts: {"": judge(records, **settings)}
