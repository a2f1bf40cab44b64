"""Figure 4: the output logits through training at a high learning rate, with z-loss and decay."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import LOSS_SEED_SD, Claim
from foretune.analysis.claims.intervals import pooled, unknown
from foretune.analysis.claims.words import cannot_tell, claim, counted, numbers, with_interval
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.runs import Runs, Variants, gather, recorded
from foretune.analysis.wortsman.traces import (
    LAST,
    Panel,
    at_nearest_rate,
    by_run,
    by_rung,
    chosen_rungs,
    differences,
    trace_figure,
    variant_lines,
    window_means,
)

LOGIT_SD: Final = 0.5
"""Prior standard deviation of the mean output logit between seeds, nats."""
FIRST: Final = (0.0, 0.1)
LATE: Final = 0.1
"""Rise of the training loss, nats, from its lowest tenth of the run to the last one, above which a
run has diverged late."""
COLUMNS: Final = {
    "logits_mean": "mean output logit (nats)",
    "logits_min": "smallest output logit (nats)",
    "log_z_mean": "mean log Z (nats)",
    "loss": "training loss (nats)",
}


def output_logit_traces(
    records: Mapping[str, Records],
    variants: Variants,
    *,
    reference: str = "",
    lr: float = 0.1,
    rung: str | float | None = None,
    where: Mapping[str, Any] | None = None,
) -> Answer:
    """Whether the logits drift at one learning rate (the nearest), and what holds them.

    `reference` is the variant without z-loss and decay (the first unless given). Drawn at `rung`
    (the smallest unless given, as in the paper); the claims are about every size.
    """
    runs = gather(records, variants, where=where)
    reference = reference or runs.variants[0]
    if reference not in variants:
        raise ValueError(
            f"reference must be one of {', '.join(variants)}, got {reference!r}; choose one"
        )
    own, rate = at_nearest_rate(runs, lr)
    others = [v for v in runs.variants if v != reference]
    claims = [_drift(own, reference, rate), _late(own, reference, rate)]
    claims += [_held(own, other, reference, rate) for other in others]
    shown = chosen_rungs(own, None if rung is None else [str(rung)], (0,))
    panels = _panels(own, shown)
    title = "Figure 4: output logits"
    title += f" at learning rate {rate:g}" if math.isfinite(rate) else ""
    return Answer(_table(own), claims, trace_figure(panels, across=len(panels), title=title))


def _drift(runs: Runs, variant: str, rate: float) -> Claim:
    finding = "at a high learning rate the output logits drift to very negative values"
    name = f"drift of the output logits, {variant}"
    if recorded(runs, "logits_mean") is None:
        return cannot_tell(name, finding, _lacking(runs, "logits_mean"))
    trials = runs.of(variant)
    ends = [window_means(runs, trials, "logits_mean", part).to_numpy() for part in (LAST, FIRST)]
    parts = by_rung(runs, variant, by_run(trials, ends[0] - ends[1]))
    found = pooled(parts.values(), sd=LOGIT_SD)
    what = f"at learning rate {rate:g} the mean output logit of {variant}, last minus first tenth,"
    by_size = {rung: pooled([part], sd=LOGIT_SD) for rung, part in parts.items()}
    return claim(name, finding, what, found, "lower", unit="nats", digits=2, by_size=by_size)


def _late(runs: Runs, variant: str, rate: float) -> Claim:
    """Whether the loss rises again by the end, beyond `LATE`."""
    finding = "without z-loss and decay training diverges, late"
    name = f"late divergence, {variant}"
    trials = runs.of(variant)
    tenths = [
        window_means(runs, trials, "loss", (i / 10, (i + 1) / 10)).to_numpy() for i in range(10)
    ]
    rises = tenths[-1] - np.min(tenths, axis=0) if len(trials) else np.empty(0)
    parts = by_rung(runs, variant, by_run(trials, rises))
    found = pooled(parts.values(), sd=LOSS_SEED_SD)
    if not found.known:
        return cannot_tell(name, finding, runs.absent or "no run recorded its training loss")
    verdict = Verdict.of(found.low > LATE, found.high < LATE)
    text = (
        f"Source A: {finding}. {verdict.here}: at learning rate {rate:g} the training loss of "
        f"{variant} ends {with_interval(found, 'nats')} above its lowest tenth of the run, "
        f"{counted(found)}; {LATE:g} nats would be a divergence."
    )
    return Claim(name, text, verdict, numbers(found, "rise"))


def _held(runs: Runs, variant: str, reference: str, rate: float) -> Claim:
    finding = "z-loss and decay keep the output logits from drifting"
    name = f"output logits at the end, {variant} against {reference}"
    if recorded(runs, "logits_mean") is None:
        return cannot_tell(name, finding, _lacking(runs, "logits_mean"))
    values = by_run(runs.trials, window_means(runs, runs.trials, "logits_mean"))
    parts = differences(runs, variant, reference, values)
    sd = LOGIT_SD * math.sqrt(2)
    none = unknown(runs.absent or "no seed ran both")
    return claim(
        name,
        finding,
        f"at learning rate {rate:g} the mean output logit of {variant} minus that of {reference}",
        pooled(parts.values(), sd=sd) if parts else none,
        "higher",
        unit="nats",
        digits=2,
        by_size={rung: pooled([part], sd=sd) for rung, part in parts.items()},
    )


def _lacking(runs: Runs, column: str) -> str:
    if not len(runs.trials):
        return runs.absent
    return f"no run recorded {column}; set telemetry_detail=true"


def _panels(runs: Runs, rungs: list[str]) -> list[Panel]:
    present = [c for c in COLUMNS if recorded(runs, c)] or ["loss"]
    return [
        Panel(
            f"size {rung}",
            COLUMNS[column],
            variant_lines(runs, runs.variants, rung, column),
            smooth=column == "loss",
        )
        for rung in rungs
        for column in present
    ]


def _table(runs: Runs) -> pd.DataFrame:
    """Each run's end: losses and the columns that are drawn, means of the last tenth."""
    trials = runs.trials
    frame = trials[["variant", "rung", "n_params", "lr", "seed", "loss"]].reset_index(drop=True)
    for column in (c for c in COLUMNS if c != "loss"):
        frame[column] = window_means(runs, trials, column).to_numpy()
    return frame.rename(columns={"rung": "size"})
