"""Figures 11 and E.12: gradient RMS against N, learning rate and block, and how near epsilon it is.

The paper reads the first MLP layer of the first block over the last 500 of 1e5 steps.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import LEVEL, pooled
from foretune.analysis.claims.words import cannot_tell, claim
from foretune.analysis.laws.attenuation import EPSILON, NEAR, attenuation
from foretune.analysis.records.load import Records
from foretune.analysis.stats.status import Status
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.gradients.epsilon import END
from foretune.analysis.wortsman.runs import Runs, gather, recorded
from foretune.analysis.wortsman.scaling import (
    NOISE,
    Panel,
    by_block,
    cells_of,
    means,
    scaling_figure,
    slope_in_lr,
    slope_in_n,
)
from foretune.analysis.wortsman.traces import at_nearest_rate

FURTHER: Final = 16.0
"""How many times the largest N the gradient is forecast for."""
SURE: Final = 0.95
"""Probability that makes a forecast a verdict."""


def gradient_scale(
    records: Mapping[str, Records],
    *,
    kind: str = "mlp_in",
    layer: int = 0,
    lr: float = 0.1,
    where: Mapping[str, Any] | None = None,
    forecast_at: tuple[float, float] | None = None,
    name: str = "Figure 11",
) -> Answer:
    """How the gradient RMS of a parameter kind falls, and where epsilon will weaken its updates.

    Of one block, or of all blocks where they weren't recorded apart. `lr` is that of the panel over
    blocks (the nearest). `forecast_at` is N and learning rate of the extrapolation: unless given,
    16 times the largest size at the highest rate. Runs are of one family: `where` says which.
    `name` is what the title calls the figure.
    """
    runs = gather(records, where=where)
    column = recorded(runs, f"grad_rms_{kind}_layer{layer}", f"grad_rms_{kind}")
    column = column or f"grad_rms_{kind}_layer{layer}"
    update = column.replace("grad_rms_", "update_rms_")
    cells, updates = cells_of(runs, column, END), cells_of(runs, update, END)
    epsilon = _epsilon(runs)
    what = f"{kind} of block {layer}" if "_layer" in column else f"{kind} of all blocks"
    claims = _slopes(cells, what, column)
    claims += [_near(cells, what, epsilon), _later(runs, cells, column, what, epsilon, forecast_at)]
    blocks = by_block(at_nearest_rate(runs, lr)[0], f"grad_rms_{kind}_layer", END)
    levels = {"epsilon": epsilon, "10 epsilon": NEAR * epsilon} if epsilon else {}
    words = "gradient RMS"
    panels = [
        Panel(cells, "n_params", "lr", words, levels),
        Panel(cells, "lr", "rung", words, levels),
        Panel(blocks, "block", "rung", words, levels),
        Panel(updates, "lr", "rung", "update RMS (before the learning rate)"),
    ]
    figure = scaling_figure(panels, f"{name}: gradients of {what}, end of training")
    return Answer(_table(cells, updates, epsilon), claims, figure)


def _epsilon(runs: Runs) -> float:
    """The runs' epsilon, 0 where it is unknown or there are several."""
    known = runs.trials[EPSILON].dropna().unique() if EPSILON in runs.trials else []
    return float(known[0]) if len(known) == 1 else 0.0


def _slopes(cells: pd.DataFrame, what: str, column: str) -> list[Claim]:
    found = []
    for axis, words, of in (
        ("the learning rate", "learning rate", slope_in_lr),
        ("N", "N", slope_in_n),
    ):
        name = f"gradient RMS of {what} and {axis}"
        finding = f"the gradient RMS falls with {axis}"
        if cells.empty:
            found.append(cannot_tell(name, finding, f"no run that ended recorded {column}"))
            continue
        number = f"the slope of log10 gradient RMS of {what} in log10 {words}"
        unit = f"decades a decade of {words}"
        found.append(claim(name, finding, number, of(cells), "lower", unit=unit, digits=2))
    return found


def _near(cells: pd.DataFrame, what: str, epsilon: float) -> Claim:
    """Whether the largest size's gradient at the highest learning rate is under 10 epsilon."""
    name = f"gradient RMS of {what} against epsilon"
    finding = "at the largest N and learning rate the gradient RMS is about AdamW's epsilon"
    if cells.empty or not epsilon:
        why = "the runs have no single epsilon" if len(cells) else "no run recorded the gradient"
        return cannot_tell(name, finding, why)
    largest = cells[cells["rung_n"] == cells["rung_n"].max()]
    top = largest[largest["lr"] == largest["lr"].max()]
    line = NEAR * epsilon
    found = pooled([top["y"].to_numpy(float) - math.log10(line)], sd=NOISE)
    r = 10 ** float(top["y"].mean())
    number = f"log10 of the gradient RMS over {NEAR:g} epsilon at size {top['rung'].iloc[0]} and "
    also = f"The RMS is {r:.3g}, {r / epsilon:.3g} times epsilon ({epsilon:g})."
    number += f"learning rate {top['lr'].iloc[0]:g}"
    return claim(name, finding, number, found, "lower", unit="decades", digits=2, also=also)


def _later(
    runs: Runs,
    cells: pd.DataFrame,
    column: str,
    what: str,
    epsilon: float,
    at: tuple[float, float] | None,
) -> Claim:
    name = f"gradient RMS of {what} at a larger size"
    finding = "as models grow the gradient RMS heads for AdamW's epsilon"
    if cells["rung"].nunique() < 2 or not epsilon:
        return cannot_tell(name, finding, "a law takes two sizes and one epsilon")
    n, lr = at or (FURTHER * float(cells["rung_n"].max()), float(cells["lr"].max()))
    telemetry = runs.telemetry[["run_id", "step", column]]
    row = attenuation(runs.trials, telemetry, n_params=n, lr=lr, window=END, level=LEVEL).iloc[0]
    if not np.isfinite(row["gradient_rms"]):
        return cannot_tell(name, finding, Status(row["status"]).reason)
    near = float(row["probability_near"])
    verdict = surely(near)
    text = (
        f"Source A: {finding}. {verdict.here}: at {n:.3g} parameters and learning rate {lr:g} it "
        f"is forecast as {row['gradient_rms']:.3g} ({LEVEL:.0%} interval {row['low']:.3g} to "
        f"{row['high']:.3g}), so updates keep {row['attenuation']:.1%} of their size (at the "
        f"interval's low end {row['attenuation_low']:.1%}); the probability that it is under "
        f"{NEAR:g} epsilon is {near:.2f} ({row['status']})."
    )
    numbers = {"gradient_rms": float(row["gradient_rms"]), "probability_near": near}
    return Claim(name, text, verdict, numbers)


def surely(probability: float) -> Verdict:
    """What a probability says for sure."""
    return Verdict.of(probability > SURE, probability < 1 - SURE)


def _table(cells: pd.DataFrame, updates: pd.DataFrame, epsilon: float) -> pd.DataFrame:
    table = means(cells, "gradient_rms")
    update = means(updates, "update_rms")[["size", "lr", "update_rms"]]
    table = table.merge(update, on=["size", "lr"], how="left")
    table["r_over_epsilon"] = table["gradient_rms"] / epsilon if epsilon else np.nan
    r = table["gradient_rms"]
    return table.assign(attenuation=r / (r + epsilon) if epsilon else np.nan)
