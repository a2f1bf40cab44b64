"""The figure of the logit law: logits against N, a curve per learning rate with its forecast."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from foretune.analysis.figures.canvas import danger_line, log_x, log_y, panel_row, set_title
from foretune.analysis.laws.laws import Law
from foretune.analysis.wortsman.styles import PARAMETERS, rate_colours


def logit_figure(
    cells: pd.DataFrame, held_out: pd.DataFrame, law: Law | None, threshold: float
) -> Figure:
    """Dots are runs, stars those of the size held out; curves and bands are the law's forecast."""
    figure, (axes,) = panel_row(1, width=7.6, height=4.8)
    set_title(axes, "Figure 9: the law of the largest logit, without the largest size")
    rates = sorted(cells["lr"].unique())
    for lr, ink in rate_colours(rates).items():
        own = cells[cells["lr"] == lr]
        fitted = own[own["rung_n"] < cells["rung_n"].max()] if len(held_out) else own
        label = f"learning rate {lr:g}"
        axes.plot(fitted["n_params"], fitted["value"], "o", ms=4, color=ink, label=label)
        later = held_out[held_out["lr"] == lr]
        axes.plot(later["n_params"], later["value"], "*", ms=11, color=ink, mec="white")
        if law is not None and law.lrs[0] <= lr <= law.lrs[-1]:
            grid = np.geomspace(cells["n_params"].min(), cells["n_params"].max(), 40)
            found = [law.predict(float(n), float(lr)) for n in grid]
            axes.plot(grid, [f.median for f in found], "-", lw=1.4, color=ink)
            low, high = [f.low for f in found], [f.high for f in found]
            axes.fill_between(grid, low, high, color=ink, alpha=0.08, lw=0)
    danger_line(axes, threshold, label=True)
    axes.plot([], [], "k*", ms=9, label="held out")
    if len(cells):
        log_x(axes, PARAMETERS)
        log_y(axes)
    axes.set_ylabel("largest attention logit, first block")
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    return figure
