"""The picture of a coordinate check: changes against width, a panel per parametrization."""

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from foretune.analysis.claims.mup_theory import BETWEEN, EMBEDDINGS, LAYERS, LINEAR

ROWS: Final = {
    "change": (
        "RMS of the change of the output",
        (*EMBEDDINGS, *LINEAR, *BETWEEN),
    ),
    "update": ("RMS of the effect of the layer's\nown update, at equal input", LINEAR),
}
"""What the rows of panels show: quantity -> (axis label, layers)."""
STYLES: Final = {
    "embedding": ("#888888", "x", ":"),
    "patch_embedding": ("#888888", "x", ":"),
    "q": ("#1f6f8b", "o", "-"),
    "k": ("#1f6f8b", "s", "--"),
    "v": ("#1f6f8b", "^", ":"),
    "attention_logits": ("#8e44ad", "D", "-"),
    "attention_out": ("#27813b", "v", "-"),
    "mlp_gate": ("#c2571a", "P", ":"),
    "mlp_in": ("#c2571a", "o", "--"),
    "mlp_out": ("#c2571a", "s", "-"),
    "block_output": ("#333333", "D", "--"),
    "logits": ("#c0392b", "*", "-"),
}
"""Colour, marker and line of each layer."""


RISE: Final = "rises as the width"


def coordinates_figure(coordinates: pd.DataFrame) -> Figure:
    """Returns changes since initialization against width, log-log, at the last step.

    coordinates has the columns `analysis.claims.mup_theory.COLUMNS`. Points are geometric means
    over seeds and blocks. Flat lines are what muP is for; grey ones rise as the width.
    """
    last = coordinates[coordinates["step"] == coordinates["step"].max()]
    names = list(dict.fromkeys(last["parametrization"]))
    figure = Figure(figsize=(3.2 * len(names) + 1.9, 6.6), layout="constrained")
    panels = figure.subplots(len(ROWS), len(names), squeeze=False, sharex=True, sharey="row")
    for row, (column, (label, layers)) in zip(panels, ROWS.items(), strict=True):
        shown = last[last["layer"].isin(layers) & (last[column] > 0)]
        for axes, name in zip(row, names, strict=True):
            _draw(axes, shown[shown["parametrization"] == name], column)
            _rise(axes, float(shown[column].min()), sorted(shown["width"].unique()))
        row[0].set_ylabel(label)
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name)
    steps = int(last["step"].iloc[0])
    figure.supxlabel(f"width, after {steps} steps")
    lines = {line.get_label(): line for axes in panels.flat for line in axes.get_lines()}
    shown = [*(layer for layer in LAYERS if layer in lines), RISE]
    figure.legend(
        [lines[layer] for layer in shown], shown, loc="outside right center", frameon=False
    )
    return figure


def _draw(axes: Axes, own: pd.DataFrame, column: str) -> None:
    for layer, group in own.groupby("layer"):
        colour, marker, line = STYLES[str(layer)]
        log_mean = group.assign(log=np.log(group[column])).groupby("width")["log"].mean()
        axes.plot(
            log_mean.index,
            np.exp(log_mean),
            color=colour,
            marker=marker,
            ls=line,
            lw=1.4,
            ms=5,
            label=layer,
        )


def _rise(axes: Axes, foot: float, widths: list[int]) -> None:
    """Axes, and a line from the foot of the row to where it rises as the width."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{width:g}" for width in widths])
    axes.grid(alpha=0.25)
    rise = [foot * width / widths[0] for width in widths]
    axes.plot(widths, rise, color="#bbbbbb", lw=3, zorder=0, label=RISE)
