"""Figure C.1: the RMS of a block's output against N, learning rate and depth."""

from collections.abc import Mapping
from typing import Any, Final

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.intervals import Interval, unknown
from foretune.analysis.claims.words import Expected, claim
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.gradients.epsilon import END
from foretune.analysis.wortsman.runs import gather
from foretune.analysis.wortsman.scaling import (
    Panel,
    by_block,
    means,
    scaling_figure,
    slope_in_block,
    slope_in_lr,
    slope_in_n,
)
from foretune.analysis.wortsman.traces import chosen_rate

STEM: Final = "output_norm_rms_layer"
FLAT: Final = 0.1
"""Decades a decade of N up to which the output counts as constant."""


def block_outputs(
    records: Mapping[str, Records],
    *,
    block: int = 2,
    lr: float = 0.1,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """How the output of a block (counted from 0) scales; the last one where there are fewer.

    Read over the last 5 % of the steps. `lr` is that of the panel over blocks (the nearest).
    """
    runs = gather(records, where=where)
    every = by_block(runs, STEM, END)
    deepest = every.groupby(["rung", "lr", "seed"])["block"].transform("max")
    cells = every[every["block"] == deepest.clip(upper=block)]
    which = f"block {block}" if (deepest >= block).all() else f"block {block} (or the last one)"
    none = unknown("no run that ended recorded its blocks' outputs")
    asked: list[tuple[str, str, Interval, Expected]] = [
        ("N", "is about constant in N", slope_in_n(cells), "same"),
        ("the learning rate", "grows with the learning rate", slope_in_lr(cells), "higher"),
        ("the block", "grows with depth", slope_in_block(every), "higher"),
    ]
    claims = [
        claim(
            f"block output and {axis}",
            f"the RMS of a block's output {finding}",
            f"the slope of its log10 in log10 of {axis if axis != 'the block' else '1 + block'} "
            f"({which if axis != 'the block' else 'all blocks'})",
            found if len(every) else none,
            expected,
            unit="decades a decade",
            digits=2,
            tolerance=FLAT,
        )
        for axis, finding, found, expected in asked
    ]
    rate = chosen_rate(runs, lr)
    words = f"output RMS, {which}"
    panels = [
        Panel(cells, "n_params", "lr", words),
        Panel(cells, "lr", "rung", words),
        Panel(every[every["lr"] == rate], "block", "rung", f"output RMS at learning rate {rate:g}"),
    ]
    table = means(every, "output_rms", by=("rung", "lr", "block"))
    return Answer(table, claims, scaling_figure(panels, "Figure C.1: outputs of blocks"))
