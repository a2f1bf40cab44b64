"""Figure E.1: do attention logits grow because q and k get longer, or because they align?

A logit is scale |q| |k| cos(q, k), so its log's growth with the learning rate is the sum of the
norms' and the cosine's. The norms are of all heads and tokens, the cosine is of the loudest pair:
what is left over is that pair's norms having outgrown the average.
"""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import Interval
from foretune.analysis.claims.words import cannot_tell, claim, with_interval
from foretune.analysis.measures.crossing import READ_WINDOW
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.runs import gather
from foretune.analysis.wortsman.scaling import (
    KEYS,
    NOISE,
    Panel,
    cells_of,
    means,
    scaling_figure,
    slope_in_lr,
)

FINDING: Final = "attention logits grow because the norms of q and k do, not because they align"
TWO: Final = 2**0.5


def logit_growth(
    records: Mapping[str, Records],
    *,
    layer: int = 0,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """What of the largest logit's growth with the learning rate is norms, and what is alignment."""
    runs = gather(records, where=where)
    columns = {
        "logit": f"{SIGNAL}_layer{layer}",
        "q": f"q_rms_layer{layer}",
        "k": f"k_rms_layer{layer}",
        "cosine": f"qk_cosine_layer{layer}",
    }
    cells = {name: cells_of(runs, column, READ_WINDOW) for name, column in columns.items()}
    joined = _joined(cells)
    lacking = [columns[name] for name, own in cells.items() if own.empty]
    claims = _claims(joined, lacking)
    parts = {name: joined[KEYS].assign(y=joined[name]) for name in ("logit", "norms", "cosine")}
    panels = [
        Panel(parts["logit"], "lr", "rung", f"largest logit, block {layer}"),
        Panel(parts["norms"], "lr", "rung", "RMS of q times RMS of k"),
        Panel(parts["cosine"], "lr", "rung", "|cosine| of the loudest pair"),
    ]
    table = _table(parts)
    return Answer(table, claims, scaling_figure(panels, "Figure E.1: norms or alignment"))


def _joined(cells: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """log10 of the largest logit, of the norms' product and of the cosine, a row per run."""
    frames = [own.rename(columns={"y": name}) for name, own in cells.items()]
    joined = frames[0]
    for frame in frames[1:]:
        joined = joined.merge(frame, on=KEYS)
    return joined.assign(norms=joined["q"].astype(float) + joined["k"].astype(float))


def _claims(joined: pd.DataFrame, lacking: list[str]) -> list[Claim]:
    names = ("logit growth is of norms", "norms against alignment")
    if joined.empty:
        why = "no run that ended recorded "
        why += f"{', '.join(lacking)}; set telemetry_detail=true" if lacking else "all of them"
        return [cannot_tell(name, FINDING, why) for name in names]

    def grows(column: str, noise: float = NOISE) -> Interval:
        return slope_in_lr(joined.assign(y=joined[column]), noise)

    logit, norms, cosine = (grows(column) for column in ("logit", "norms", "cosine"))
    joined = joined.assign(difference=joined["norms"] - joined["cosine"])
    unit = "decades a decade of learning rate"
    share = ""
    if logit.sign > 0:
        rest = logit.value - norms.value - cosine.value
        share = (
            f"Of the logit's own {with_interval(logit, '', 2)} norms make "
            f"{norms.value / logit.value:.0%}, the cosine {cosine.value / logit.value:.0%} "
            f"({with_interval(cosine, '', 2)}), and the loudest pair's norms "
            f"beyond the average's {rest / logit.value:.0%}."
        )
    return [
        claim(
            names[0],
            FINDING,
            "the slope of log10 (RMS of q times RMS of k) in log10 learning rate",
            norms,
            "higher",
            unit=unit,
            digits=2,
            also=share,
        ),
        claim(
            names[1],
            FINDING,
            "the norms' slope minus the cosine's",
            grows("difference", NOISE * TWO),
            "higher",
            unit=unit,
            digits=2,
        ),
    ]


def _table(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    names = {"logit": "largest_logit", "norms": "q_rms_times_k_rms", "cosine": "cosine"}
    tables = [means(parts[part], name) for part, name in names.items()]
    table = tables[0]
    for other, name in zip(tables[1:], list(names.values())[1:], strict=True):
        table = table.merge(other[["size", "lr", name]], on=["size", "lr"])
    return table
