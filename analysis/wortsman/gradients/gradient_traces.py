"""Figures 13 and E.13: gradient and update RMS of several blocks through training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from foretune.analysis.claims.answer import Answer
from foretune.analysis.claims.claim import Claim
from foretune.analysis.claims.intervals import pooled
from foretune.analysis.claims.words import cannot_tell, claim
from foretune.analysis.laws.attenuation import EPSILON
from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.runs import Runs, gather
from foretune.analysis.wortsman.styles import Style
from foretune.analysis.wortsman.traces import (
    Panel,
    by_run,
    by_rung,
    chosen_rate,
    chosen_rungs,
    trace_figure,
    traces,
)

UPDATE_SD: Final = 0.06
"""Prior standard deviation of a log10 ratio of update RMS between seeds, dex."""
FINDING: Final = "once the gradient RMS falls below epsilon, the update RMS falls, too"
MOST_BLOCKS: Final = 6
"""Blocks that are drawn, evenly spaced from the first to the last."""


def gradient_traces(
    records: Mapping[str, Records],
    *,
    kind: str = "mlp_in",
    lrs: Sequence[float] = (0.3,),
    rungs: Sequence[str | float] | None = None,
    where: Mapping[str, Any] | None = None,
    name: str = "Figure 13",
) -> Answer:
    """Gradient RMS above and update RMS below, a panel per size and learning rate.

    Of the parameters `kind` in each block, where they were recorded apart. At the learning rates
    nearest to `lrs` and `rungs` (the largest unless given). The update is AdamW's before the
    learning rate.
    `name` is what the title calls the figure.
    """
    runs = gather(records, where=where)
    shown = chosen_rungs(runs, [str(rung) for rung in rungs] if rungs else None, (-1,))
    rates = [chosen_rate(runs, lr) for lr in lrs]
    places = [(rung, lr) for rung in shown for lr in dict.fromkeys(rates) if math.isfinite(lr)]
    columns = _columns(runs, kind)
    panels = [
        _panel(runs, f"{quantity}_{kind}", words, place, columns)
        for quantity, words in (("grad_rms", "gradient RMS"), ("update_rms", "update RMS"))
        for place in places
    ]
    title = f"{name}: gradients and updates of {kind}"
    figure = trace_figure(panels, across=len(places), title=title, share=True)
    return Answer(_table(runs, places, columns, kind), [_near(runs, kind, columns)], figure)


def _columns(runs: Runs, kind: str) -> list[str]:
    """What follows the kind in the columns of its blocks; one empty string where none is apart."""
    start = f"grad_rms_{kind}_layer"
    layers = sorted(
        int(name.removeprefix(start))
        for name in runs.telemetry.columns
        if name.startswith(start) and name.removeprefix(start).isdigit()
    )
    if len(layers) > MOST_BLOCKS:
        picked = np.linspace(0, len(layers) - 1, MOST_BLOCKS).round().astype(int)
        layers = [layers[place] for place in picked]
    return [f"_layer{layer}" for layer in layers] or [""]


def _panel(
    runs: Runs, stem: str, words: str, place: tuple[str, float], columns: Sequence[str]
) -> Panel:
    rung, lr = place
    trials = runs.trials[(runs.trials["rung"] == rung) & np.isclose(runs.trials["lr"], lr)]
    ramp = matplotlib.colormaps["cividis"]
    lines: list[tuple[str, Style, list[pd.DataFrame]]] = []
    for index, column in enumerate(columns):
        ink = to_hex(ramp(0.85 * index / max(1, len(columns) - 1)))
        label = f"block {column.removeprefix('_layer')}" if column else "all blocks"
        lines.append((label, (ink, "o", "-"), traces(runs, trials, stem + column)))
    return Panel(f"size {rung}, learning rate {lr:g}", words, lines, log=True)


def _near(runs: Runs, kind: str, columns: Sequence[str]) -> Claim:
    """How updates change where a block's gradient is below epsilon, against the run before."""
    name = f"updates where gradients of {kind} are small"
    ratios: dict[str, float] = {}
    closest = math.inf
    for column in columns:
        grad, update = f"grad_rms_{kind}{column}", f"update_rms_{kind}{column}"
        if grad not in runs.telemetry or update not in runs.telemetry:
            continue
        for run_id, ratio, nearest in _ratios(runs, grad, update):
            closest = min(closest, nearest)
            if math.isfinite(ratio):
                ratios[run_id] = min(ratio, ratios.get(run_id, math.inf))
    if not math.isfinite(closest):
        return cannot_tell(name, FINDING, f"no run recorded gradients and updates of {kind}")
    if not ratios:
        why = f"no run's gradients cross epsilon; the smallest stand at {closest:.3g} times it"
        return cannot_tell(name, FINDING, why)
    parts = by_rung(runs, runs.variants[0], by_run_mean(runs, ratios))
    found = pooled(parts.values(), sd=UPDATE_SD)
    what = (
        f"log10 of the update RMS of {kind} while its gradient is below epsilon, over that before,"
    )
    return claim(name, FINDING, what, found, "lower", unit="decades", digits=2)


def by_run_mean(runs: Runs, values: Mapping[str, float]) -> dict[str, float]:
    """The values of the runs that have one, by run_id; NaN for the others."""
    ids = runs.trials["run_id"].astype(str)
    return by_run(runs.trials, [values.get(run, math.nan) for run in ids])


def _ratios(runs: Runs, grad: str, update: str) -> list[tuple[str, float, float]]:
    """Run, log10 update ratio (NaN where the gradient stays above), smallest r / epsilon."""
    epsilons = dict(zip(runs.trials["run_id"], _epsilons(runs), strict=True))
    rows = runs.telemetry[["run_id", grad, update]].dropna()
    found = []
    for run_id, own in rows.groupby("run_id"):
        share = own[grad].to_numpy(float) / epsilons[run_id]
        size, below = own[update].to_numpy(float), share < 1
        ratio = math.nan
        if below.any() and (~below).any() and (size > 0).all():
            ratio = float(np.log10(size[below]).mean() - np.log10(size[~below]).mean())
        found.append((str(run_id), ratio, float(share.min())))
    return found


def _epsilons(runs: Runs) -> pd.Series:
    given = runs.trials.get(EPSILON, pd.Series(np.nan, index=runs.trials.index))
    return given.astype(float)


def _table(
    runs: Runs, places: Sequence[tuple[str, float]], columns: Sequence[str], kind: str
) -> pd.DataFrame:
    """The traces that are drawn, mean over seeds: size, lr, block, step, two RMS."""
    parts = []
    for rung, lr in places:
        chosen = (runs.trials["rung"] == rung) & np.isclose(runs.trials["lr"], lr)
        own = runs.telemetry[runs.telemetry["run_id"].isin(runs.trials[chosen]["run_id"])]
        for column in columns:
            names = {f"grad_rms_{kind}{column}": "gradient_rms"}
            names |= {f"update_rms_{kind}{column}": "update_rms"}
            present = {name: to for name, to in names.items() if name in own}
            mean = own.groupby("step")[[*present]].mean().dropna(how="all").rename(columns=present)
            block = column.removeprefix("_layer") or "all"
            parts.append(mean.reset_index().assign(size=rung, lr=lr, block=block))
    names = ["size", "lr", "block", "step", "gradient_rms", "update_rms"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    return table.reindex(columns=names)
