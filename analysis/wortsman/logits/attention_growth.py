"""Figure 2: loss and the first block's largest attention logit through training, two sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import LOSS_SEED_SD, Claim
from foretune.analysis.claims.intervals import pooled
from foretune.analysis.claims.words import cannot_tell, claim
from foretune.analysis.measures.signal import SIGNAL, read_signal
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.runs import Runs, Variants, gather, recorded
from foretune.analysis.wortsman.traces import (
    Panel,
    at_nearest_rate,
    by_run,
    chosen_rungs,
    differences,
    trace_figure,
    variant_lines,
)

LOGIT_SD: Final = 0.1
"""Standard deviation of the log10 largest logit between seeds, dex: 0.10 without qk-layernorm and
0.04 with it, over six widths of the byte language model at learning rate 0.03."""
LOGITS: Final = (f"{SIGNAL}_layer0", SIGNAL)


def attention_traces(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    cured: str = "",
    lr: float = 3e-2,
    rungs: Sequence[str | float] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """What becomes of loss and logits at one learning rate (the nearest) with and without a cure.

    `cured` is the variant with qk-layernorm (the last unless given), held against each other one.
    Drawn at `rungs` (smallest and largest unless given); the claims are about every size.
    """
    runs = gather(records, variants, where=where)
    cured = cured or runs.variants[-1]
    if cured not in variants:
        raise ValueError(f"cured must be one of {', '.join(variants)}, got {cured!r}; choose one")
    own, rate = at_nearest_rate(runs, lr)
    signal = recorded(own, *LOGITS) or LOGITS[0]
    cells = read_signal(own.trials, own.telemetry, signal=signal)
    logits = by_run(cells, np.log10(cells["value"]))
    losses = by_run(own.trials, own.trials["loss"])
    claims = []
    for label in (v for v in runs.variants if v != cured):
        for name, values in (("loss", losses), ("logit", logits)):
            claims.append(_compared(own, name, values, label, cured, rate))
    shown = chosen_rungs(runs, [str(r) for r in rungs] if rungs else None, (0, -1))
    title = f"Figure 2: runs at learning rate {rate:g}" if math.isfinite(rate) else "Figure 2"
    panels = _panels(own, shown, signal)
    figure = trace_figure(panels, across=len(shown), title=title, share=True)
    return Answer(_table(own, losses, logits), claims, figure)


FINDINGS: Final = {
    "loss": "without qk-layernorm training diverges at both sizes",
    "logit": "without qk-layernorm the largest attention logit of the first block grows with it",
}


def _compared(
    runs: Runs, name: str, values: Mapping[str, float], label: str, cured: str, rate: float
) -> Claim:
    sd, unit, words = {
        "loss": (LOSS_SEED_SD, "nats", "the final loss"),
        "logit": (LOGIT_SD, "decades", "log10 of the largest attention logit at the end"),
    }[name]
    parts = differences(runs, label, cured, values)
    title = f"{words}, {label} against {cured}"
    if not parts:
        why = runs.absent or f"no seed ran both {label} and {cured} with that reading"
        return cannot_tell(title, FINDINGS[name], why)
    sd *= math.sqrt(2)
    return claim(
        title,
        FINDINGS[name],
        f"at learning rate {rate:g} {words} of {label} minus that of {cured}",
        pooled(parts.values(), sd=sd),
        "higher",
        unit=unit,
        by_size={rung: pooled([part], sd=sd) for rung, part in parts.items()},
    )


def _panels(runs: Runs, rungs: Sequence[str], signal: str) -> list[Panel]:
    panels = []
    for column, words, log in (
        ("loss", "training loss (nats)", False),
        (signal, "largest attention logit", True),
    ):
        for rung in rungs:
            lines = variant_lines(runs, runs.variants, rung, column)
            panels.append(Panel(f"size {rung}", words, lines, log=log, smooth=column == "loss"))
    return panels


def _table(runs: Runs, losses: Mapping[str, float], logits: Mapping[str, float]) -> pd.DataFrame:
    trials = runs.trials
    ids = trials["run_id"].astype(str)
    frame = pd.DataFrame(
        {
            "variant": trials["variant"],
            "size": trials["rung"],
            "n_params": trials["n_params"],
            "lr": trials["lr"],
            "seed": trials["seed"],
            "loss": ids.map(losses),
            "largest_logit": 10 ** ids.map(logits).astype(float),
        }
    )
    return frame.sort_values(["variant", "n_params", "seed"], ignore_index=True)
