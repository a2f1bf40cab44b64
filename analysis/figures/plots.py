"""Figures from tables and results; nothing is computed here but positions.

Sizes keep one colour in all figures: dark for small, light for large. Every function returns a
`matplotlib.figure.Figure`, made without pyplot, so nothing is shown and no state is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.figures.canvas import (
    DANGER,
    INK,
    LINE_LABEL,
    danger_line,
    draw_legend,
    log_x,
    log_y,
    panel_row,
    set_title,
)
from foretune.analysis.figures.palette import FAMILY_INKS, FAMILY_STYLES
from foretune.analysis.laws.critical_law import CriticalLaw
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.thresholds import PAPER_ATTENTION_LOGIT


@dataclass(frozen=True, slots=True)
class Measured:
    """A forecast beside what was measured, for `critical_figure`."""

    n_params: float
    median: float
    low: float
    high: float
    measured: float


def loss_figure(cells: pd.DataFrame, colours: Mapping[float, str]) -> Figure:
    """Final loss against learning rate, one panel per family, one line per size.

    `cells` as `read_signal` gives it, with a column `family`; diverged runs stand at their loss at
    init and are drawn as crosses.
    """
    names = list(dict.fromkeys(cells["family"]))
    figure, panels = panel_row(len(names), share_y=True)
    for axes, name in zip(panels, names, strict=True):
        own = cells[(cells["family"] == name)].dropna(subset=["loss"])
        for size, group in own.groupby("size"):
            curve = group.groupby("lr")["loss"].mean()
            axes.plot(curve.index, curve, "-", color=colours[_key(size)], lw=1.8, zorder=2)
            axes.plot(group["lr"], group["loss"], "o", ms=4, color=colours[_key(size)], zorder=3)
            lost = group[group["outcome"] == "diverged"]
            axes.plot(lost["lr"], lost["loss"], "x", ms=8, color=DANGER, zorder=4)
        log_x(axes, "learning rate")
        set_title(axes, name)
    panels[0].set_ylabel("final validation loss (nats)")
    _size_legend(panels[-1], cells, colours)
    return figure


def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """LR sensitivity against N: whole grid (with interval), and from the best rate up if known."""
    titles = {"sensitivity": "over the whole grid", "high_side": "from the best learning rate up"}
    shown = [column for column in titles if table[column].notna().any()]
    figure, panels = panel_row(len(shown), share_y=True)
    for axes, column in zip(panels, shown, strict=True):
        for index, (name, own) in enumerate(table.groupby("family", sort=False)):
            marker, line = FAMILY_STYLES[index % len(FAMILY_STYLES)]
            ink = FAMILY_INKS[index % len(FAMILY_INKS)]
            own = own.dropna(subset=[column]).sort_values("n_params")
            axes.plot(
                own["n_params"], own[column], line, marker=marker, color=ink, ms=6, label=name
            )
            if column == "sensitivity":
                low, high = own["low"], own["high"]
                axes.fill_between(own["n_params"], low, high, color=ink, alpha=0.13, lw=0)
                axes.vlines(own["n_params"], low, high, color=ink, lw=1)
        log_x(axes, "parameters without embedding and head")
        set_title(axes, titles[column])
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("LR sensitivity (nats)")
    draw_legend(panels[0])
    return figure


def trace_figure(traces: pd.DataFrame, *, signal: str, threshold: float) -> Figure:
    """A signal over the steps, one panel per size, one line per learning rate.

    `traces` has columns `size`, `lr`, `run_id`, `step`, `value`; lines are labelled at their end.
    """
    sizes = sorted(traces["size"].unique())
    figure, panels = panel_row(len(sizes), share_y=True)
    rates = sorted(traces["lr"].unique())
    ramp, places = matplotlib.colormaps["plasma"], np.linspace(0.0, 0.85, len(rates))
    inks = {lr: ramp(place) for lr, place in zip(rates, places, strict=True)}
    for axes, size in zip(panels, sizes, strict=True):
        own = traces[traces["size"] == size]
        ends = []
        for (lr, _), run in own.groupby(["lr", "run_id"]):
            axes.plot(run["step"], run["value"], color=inks[lr], lw=1.4)
            ends.append((float(run["value"].iloc[-1]), f"{lr:g}", inks[lr]))
        log_y(axes)
        danger_line(axes, threshold, label=size == sizes[0])
        axes.set_xlabel("step")
        set_title(axes, f"size {size:g}")
        _label_ends(axes, ends)
    panels[0].set_ylabel(_words(signal))
    return figure


def signal_figure(
    cells: pd.DataFrame, colours: Mapping[float, str], *, signal: str, threshold: float
) -> Figure:
    """A signal at the end of the runs against learning rate, one panel per family."""
    names = list(dict.fromkeys(cells["family"]))
    figure, panels = panel_row(len(names), share_y=True)
    for axes, name in zip(panels, names, strict=True):
        own = cells[cells["family"] == name].dropna(subset=["value"])
        for size, group in own.groupby("size"):
            ink = colours[_key(size)]
            ended, early = group[~group["censored"]], group[group["censored"]]
            curve = 10 ** np.log10(ended["value"]).groupby(ended["lr"]).mean()
            axes.plot(curve.index, curve, "-", color=ink, lw=1.8)
            axes.plot(ended["lr"], ended["value"], "o", ms=4, color=ink)
            axes.plot(early["lr"], early["value"], "^", ms=7, mfc="white", color=ink)
        log_x(axes, "learning rate")
        log_y(axes)
        danger_line(axes, threshold, label=name == names[0])
        if signal == "max_attention_logit" and own["value"].max() > PAPER_ATTENTION_LOGIT / 10:
            axes.axhline(PAPER_ATTENTION_LOGIT, color=INK, lw=0.9, ls=":")
            axes.annotate("Wortsman et al.: 1e4", (0.02, PAPER_ATTENTION_LOGIT), **LINE_LABEL)
        set_title(axes, name)
    panels[0].set_ylabel(_words(signal))
    _size_legend(panels[-1], cells, colours)
    return figure


def critical_figure(
    table: pd.DataFrame,
    law: CriticalLaw,
    colours: Mapping[float, str],
    *,
    level: float,
    checks: Sequence[Measured] = (),
) -> Figure:
    """Critical learning rate against N: crossings of both kinds, the law, and what came of it."""
    figure, (axes,) = panel_row(1, width=7.2, height=4.6)
    kinds = (
        ("critical_lr", "o", INK, "signal at the danger line"),
        ("penalty_lr", "s", FAMILY_INKS[1], f"loss {WORTH:g} nats above the twin"),
        ("excess_lr", "D", FAMILY_INKS[2], f"loss {WORTH:g} nats above its best"),
    )
    for column, marker, ink, text in kinds:
        own = table.dropna(subset=[column])
        if own.empty:
            continue
        if column == "critical_lr":
            inks = [colours[_key(size)] for size in own["size"]]
            axes.scatter(own["n_params"], own[column], c=inks, marker=marker, s=60, zorder=4)
            axes.plot([], [], marker, ms=7, color=ink, label=text)
        else:
            style = {"ms": 6, "mfc": "white", "color": ink, "label": text, "zorder": 3}
            axes.plot(own["n_params"], own[column], marker, **style)
    _law_band(axes, law, [check.n_params for check in checks], level)
    for index, check in enumerate(checks):
        bars = [[check.median - check.low], [check.high - check.median]]
        text = f"forecast, {level:.0%} interval" if index == 0 else None
        style = {"fmt": "_", "ms": 12, "capsize": 4, "color": INK, "label": text, "zorder": 4}
        axes.errorbar([check.n_params], [check.median], yerr=bars, **style)
        text = "measured afterwards" if index == 0 else None
        style = {"ms": 14, "color": DANGER, "label": text, "zorder": 5, "mec": "white"}
        axes.plot([check.n_params], [check.measured], "*", **style)
    log_x(axes, "parameters without embedding and head")
    log_y(axes)
    axes.set_ylabel("critical learning rate")
    draw_legend(axes)
    return figure


def _law_band(axes: Axes, law: CriticalLaw, further: Sequence[float], level: float) -> None:
    if law.posterior is None:
        return
    grid = np.geomspace(law.smallest, max([16 * law.largest, *further]), 60)
    found = [law.predict(float(n), level) for n in grid]
    inside = grid <= law.largest * (1 + 1e-9)
    median = np.array([point.median for point in found])
    axes.plot(grid[inside], median[inside], color=INK, lw=1.5, label=f"N to the {law.slope:.2f}")
    axes.plot(grid[~inside], median[~inside], color=INK, lw=1.5, ls=(0, (4, 3)))
    low, high = [p.low for p in found], [p.high for p in found]
    axes.fill_between(grid, low, high, color=INK, alpha=0.1, lw=0, label=f"{level:.0%} of runs")


def _label_ends(axes: Axes, ends: list[tuple[float, str, Any]]) -> None:
    """Learning rates at the right ends of their lines, pushed apart where they would overlap."""
    low, high = np.log10(axes.get_ylim())
    axes.annotate("LR", (1.0, 1.0), xycoords="axes fraction", fontsize=8, color=INK)
    gap, last = (high - low) * 0.055, -np.inf
    seen: set[str] = set()
    for value, text, ink in sorted(ends, key=lambda end: end[0]):
        if text in seen:
            continue
        seen.add(text)
        last = max(float(np.log10(value)), last + gap)
        style = LINE_LABEL | {"xytext": (3, -3), "color": ink, "annotation_clip": False}
        axes.annotate(text, (1.0, 10**last), **style)


def _size_legend(axes: Axes, cells: pd.DataFrame, colours: Mapping[float, str]) -> None:
    for size in sorted(cells["size"].unique()):
        axes.plot([], [], "o-", ms=4, color=colours[_key(size)], label=f"size {size:g}")
    draw_legend(axes)


def _key(size: Any) -> float:
    return float(size)


def _words(signal: str) -> str:
    return "largest attention logit" if signal == "max_attention_logit" else signal
