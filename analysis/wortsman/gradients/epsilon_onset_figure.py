"""The figure of epsilon's onset: cost and update against epsilon over r, and r against N."""

import math
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.claims.intervals import LEVEL
from foretune.analysis.figures.canvas import INK, draw_legend, log_x, log_y, panel_row, set_title
from foretune.analysis.figures.palette import size_colours
from foretune.analysis.laws.laws import Law
from foretune.analysis.wortsman.styles import PARAMETERS, rate_colours

SHARE: Final = "epsilon / gradient RMS at the usual epsilon"


def onset_figure(
    table: pd.DataFrame, law: Law | None, usual: float, seen: tuple[float, float], cost: float
) -> Figure:
    """Three panels; `table` is that of `epsilon_onset`, `seen` parameters and rate of the source's
    own observation, `cost` the loss that counts (nats)."""
    figure, panels = panel_row(3, width=14.2, height=4.4)
    figure.suptitle("Where AdamW's epsilon begins to matter", fontsize=12, color=INK)
    _draw_costs(panels[0], table, cost)
    _draw_updates(panels[1], table)
    _draw_law(panels[2], table, law, usual, seen)
    return figure


def _sizes(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    parts = [(str(size), part) for size, part in table.groupby("size", sort=False)]
    smallest = [float(part["n_params"].min()) for _, part in parts]
    colours = size_colours(smallest) if parts else {}
    return [
        (f"size {size}", colours[n], part) for n, (size, part) in zip(smallest, parts, strict=True)
    ]


def _draw_costs(axes: Axes, table: pd.DataFrame, cost: float) -> None:
    set_title(axes, "what it costs, at rates up to the best one")
    axes.set_ylabel("loss minus that at the usual epsilon (nats)")
    shown = table[table["up_to_best"] & (table["cost"] > 0)]
    for label, ink, part in _sizes(shown):
        for number, (_, own) in enumerate(part.groupby("lr")):
            name = label if number == 0 else None
            axes.plot(own["epsilon_over_r"], own["cost"], "o-", ms=4, lw=1, color=ink, label=name)
    axes.axhline(cost, color=INK, lw=1, ls=":")
    axes.annotate(f"{cost:g}", (0.02, cost), xycoords=("axes fraction", "data"), fontsize=8)
    if len(shown):
        log_x(axes, SHARE)
        log_y(axes)
        draw_legend(axes)


def _draw_updates(axes: Axes, table: pd.DataFrame) -> None:
    set_title(axes, "what is left of an update")
    axes.set_ylabel("update RMS over that at the usual epsilon")
    shown = table[(table["update_kept"] > 0) & (table["epsilon_over_r"] > 0)]
    for lr, ink in rate_colours(sorted(shown["lr"].unique())).items():
        own = shown[shown["lr"] == lr]
        label = f"learning rate {lr:g}"
        axes.plot(own["epsilon_over_r"], own["update_kept"], "o", ms=4, color=ink, label=label)
    if len(shown):
        x = np.geomspace(shown["epsilon_over_r"].min(), shown["epsilon_over_r"].max(), 100)
        axes.plot(x, 1 / (1 + x), "-", color=INK, lw=1.4, label="r / (r + epsilon)")
        log_x(axes, SHARE)
        draw_legend(axes)
    axes.set_ylim(bottom=0)


def _draw_law(
    axes: Axes, table: pd.DataFrame, law: Law | None, usual: float, seen: tuple[float, float]
) -> None:
    n, lr = seen
    set_title(axes, f"gradient RMS at learning rate {lr:g}")
    axes.set_ylabel("gradient RMS, first MLP layer")
    own = table[np.isclose(table["lr"], lr)].drop_duplicates("size")
    axes.plot(own["n_params"], own["gradient_rms"], "o", color=INK, ms=5, label="measured")
    if law is not None and law.lrs[0] <= lr <= law.lrs[-1]:
        sizes = np.geomspace(law.smallest, 3 * n, 60)
        band = np.array([law.believe(float(size), lr).interval(LEVEL) for size in sizes])
        axes.plot(sizes, 10 ** band[:, 0], "-", color=INK, lw=1.4, label="law")
        axes.fill_between(sizes, 10 ** band[:, 1], 10 ** band[:, 2], color=INK, alpha=0.1, lw=0)
    axes.axhline(usual, color=INK, lw=1, ls=":", label=f"usual epsilon, {usual:g}")
    label = "source A: about epsilon"
    axes.plot([n], [usual], "*", ms=13, color="#c0392b", label=label)
    low = usual / 1e3
    high = float(own["gradient_rms"].max()) * 10 if len(own) else 1.0
    axes.set_ylim(low, high if math.isfinite(high) else 1.0)
    log_x(axes, PARAMETERS)
    log_y(axes)
    draw_legend(axes)
