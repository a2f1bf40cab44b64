"""Figure 9: the largest attention logit of the first block, read early, as a law in N.

The paper fits a parabola in log N at each learning rate to smaller models and forecasts one that is
larger. Here the largest size is held out at every learning rate; and since a logit at a fixed rate
bends where it crosses its line, the claim is made of the critical learning rate, too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.logits.logit_claims import critical_held_out, falls, forecast
from foretune.analysis.wortsman.logits.logit_figure import logit_figure
from foretune.analysis.wortsman.logits.logit_reading import Reading, critical_pair, error_of, read
from foretune.analysis.wortsman.runs import gather, recorded

AT_SHARE: Final = 0.1
"""Share of the steps at which short runs are read; the paper's 0.02 lies inside warm-up."""
AT_SHARES: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Where else the signal is read, to see how much the answer depends on it."""


def logit_law(
    records: Mapping[str, Records],
    *,
    where: Mapping[str, Any] | None = None,
    at_share: float = AT_SHARE,
    threshold: float = ATTENTION_LOGIT.value,
    at_shares: Sequence[float] = AT_SHARES,
) -> Answer:
    """The law of the largest logit with the largest size held out, and of the critical rate.

    Runs of one family: `where` says which (without qk-layernorm: {"model.qk_norm": False}). The
    table has the slope and the held-out error at every reading point of `at_shares` and `at_share`.
    """
    for share in (at_share, *at_shares):
        if not 0 < share <= 1:
            raise ValueError(
                f"at_share must be a share of the steps, above 0 and up to 1, got {share}; 0.1 is "
                "usual"
            )
    runs = gather(records, where=where)
    signal = recorded(runs, f"{SIGNAL}_layer0", SIGNAL) or f"{SIGNAL}_layer0"
    readings = {s: read(runs, signal, s, threshold) for s in sorted({*at_shares, at_share})}
    chosen = readings[at_share]
    claims = [falls(chosen, threshold), critical_held_out(chosen), forecast(chosen, threshold)]
    table = pd.DataFrame([_row(reading) for reading in readings.values()])
    return Answer(table, claims, logit_figure(chosen.cells, chosen.held_out, chosen.law, threshold))


def _row(reading: Reading) -> dict[str, Any]:
    error, law = error_of(reading.held_out), reading.all_sizes
    measured, (median, low, high) = critical_pair(reading)
    inside = (error["value"] >= error["low"]) & (error["value"] <= error["high"])
    return {
        "at_share": reading.at_share,
        "slope": law.slope,
        "slope_low": law.slope_low,
        "slope_high": law.slope_high,
        "form": reading.law.form if reading.law else "",
        "held_out_cells": len(error),
        "mean_error_dex": float(error["error"].abs().mean()) if len(error) else math.nan,
        "bias_dex": float(error["error"].mean()) if len(error) else math.nan,
        "inside_interval": float(inside.mean()) if len(error) else math.nan,
        "critical_lr_measured": measured,
        "critical_lr_forecast": median,
        "critical_lr_low": low,
        "critical_lr_high": high,
        "status": law.status,
    }
