"""Figures of number formats: one line per quantizer, one point per seed."""

from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from foretune.analysis.claims.bitnet_claims import decay_table, ended
from foretune.analysis.claims.format_cells import quantizer_cells

INKS: Final = {
    "full precision": "#333333",
    "full precision + norms": "#8a8a8a",
    "ternary mean + norms": "#c2571a",
    "ternary median + norms": "#1f6f8b",
    "ternary mean": "#e0a37c",
    "ternary median": "#7fb3c8",
}
OTHER_INK: Final = "#6b4c9a"
METRICS: Final = {"loss": "final validation loss (nats)", "error": "share classified wrongly"}


def quantizer_figure(trials: pd.DataFrame, *, x: str, metric: str = "loss") -> Figure:
    """Returns the figure for an axis: size (and bytes beside it), lr (a panel per size and
    qk-layernorm setting), or decay.
    """
    if x == "lr":
        return _against_lr(trials)
    if x == "decay":
        cells = decay_table(trials)
        figure, (axes,) = _panels(1)
        _lines(axes, cells, "decay")
        axes.set_xscale("symlog", linthresh=1e-5)
        axes.set_xlabel("independent weight decay a step (0 at the left)")
    else:
        cells = quantizer_cells(trials, metric=metric)
        figure, axes = _against_size(cells)
    axes.set_ylabel(METRICS[metric])
    axes.legend(frameon=False, fontsize=8)
    return figure


def _against_size(cells: pd.DataFrame) -> tuple[Figure, Axes]:
    """Size, and stored bytes where they are known."""
    labels = {"size": "size", "weight_bytes": "bytes of the stored weights"}
    shown = [column for column in labels if cells[column].notna().any()]
    figure, panels = _panels(len(shown))
    for panel, column in zip(panels, shown, strict=True):
        _lines(panel, cells, column)
        panel.set_xscale("log")
        panel.set_xlabel(labels[column])
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
    ticks = sorted(cells["size"].unique())
    panels[0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[0].minorticks_off()
    return figure, panels[0]


def _against_lr(trials: pd.DataFrame) -> Figure:
    frame = ended(trials)
    by = ["size", *(["model.qk_norm"] if "model.qk_norm" in frame else [])]
    groups = list(frame.groupby(by, sort=True))
    figure, panels = _panels(len(groups))
    for axes, (key, group) in zip(panels, groups, strict=True):
        _lines(axes, group.rename(columns={"objective": "value"}), "lr")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        names = (n.rpartition(".")[2] for n in by)
        axes.set_title(", ".join(f"{n} {v:g}" for n, v in zip(names, key, strict=True)), fontsize=9)
    panels[0].set_ylabel(METRICS["loss"])
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _panels(count: int):
    figure = Figure(figsize=(3.9 * count + 1, 3.8), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
    return figure, panels


def _lines(axes, cells: pd.DataFrame, x: str) -> None:
    for quantizer, group in cells.groupby("quantizer", sort=True):
        ink = INKS.get(str(quantizer), OTHER_INK)
        means = group.groupby(x)["value"].mean()
        axes.plot(means.index, means, "-", color=ink, lw=1.7, label=quantizer, zorder=2)
        axes.plot(group[x], group["value"], "o", ms=3, color=ink, alpha=0.6, zorder=3)
