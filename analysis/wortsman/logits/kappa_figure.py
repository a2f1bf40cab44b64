"""The figure of forced logits: loss and largest logit against kappa, a line per architecture."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from foretune.analysis.figures.canvas import INK, draw_legend, log_x, log_y, set_quiet, set_title
from foretune.analysis.wortsman.styles import variant_styles


def kappa_figure(cells: Mapping[str, pd.DataFrame], bigram: Mapping[str, float | None]) -> Figure:
    """`cells` by architecture, with columns kappa, seed, loss, logit; dots are runs."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained", dpi=130)
    figure.suptitle("Figure 10: attention logits forced up by kappa", fontsize=12, color=INK)
    left, right = figure.subplots(1, 2)
    styles = variant_styles(list(cells))
    highest = 0.0
    for axes, column in ((left, "loss"), (right, "logit")):
        set_quiet(axes)
        for label, own in cells.items():
            ink, marker, line = styles[label]
            own = own[own[column] > 0]
            value = np.log(own[column]) if column == "logit" else own[column]
            mean = value.groupby(own["kappa"]).mean()
            mean = np.exp(mean) if column == "logit" else mean
            axes.plot(mean.index, mean, line, color=ink, lw=1.6, label=label)
            axes.plot(own["kappa"], own[column], marker, ms=3, color=ink, alpha=0.6)
            highest = max(highest, own["kappa"].max() if len(own) else 0.0)
    losses = {loss: styles[label][0] for label, loss in bigram.items() if loss is not None}
    for loss, ink in losses.items():
        left.axhline(loss, color=ink, ls=":", lw=1.2)
    if losses:
        at = (0.99, max(losses))
        left.annotate(
            "bigram",
            at,
            xytext=(0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    left.set_ylabel("final validation loss (nats)")
    set_title(left, "loss")
    right.set_ylabel("largest attention logit")
    set_title(right, "what is achieved")
    if highest:
        lowest = min(own["kappa"].min() for own in cells.values() if len(own))
        right.plot([lowest, highest], [lowest, highest], color=INK, lw=0.8, ls=":", label="kappa")
        log_x(left, "kappa")
        log_x(right, "kappa")
        log_y(right)
    draw_legend(right)
    return figure
