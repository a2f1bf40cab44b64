"""The figure of curves: loss against learning rate per variant above, numbers against N below."""

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.claims.intervals import pooled
from foretune.analysis.figures.canvas import (
    DANGER,
    INK,
    draw_legend,
    log_x,
    log_y,
    set_quiet,
    set_title,
)
from foretune.analysis.figures.palette import size_colours
from foretune.analysis.wortsman.curves.curves import MEASURES, Curve, whole
from foretune.analysis.wortsman.styles import PARAMETERS, Style, variant_styles

ACROSS: Final = 4
"""Panels in a row."""
LABELS: Final = {
    "high_side": "LR sensitivity above the best",
    "best_loss": "best loss",
    "high_loss": "loss at the highest two rates",
}


def curves_figure(
    curves: Sequence[Curve], variants: Sequence[str], below: Sequence[str], title: str = ""
) -> Figure:
    """One panel per variant, a line per size and a dot per seed; then one panel per measure."""
    shown = [v for v in variants if any(curve.variant == v for curve in curves)] or ["no runs"]
    above = -(-len(shown) // ACROSS)
    rows = above + -(-len(below) // ACROSS)
    across = min(ACROSS, max(len(shown), len(below)))
    size = (1.2 + 3.5 * across, 0.5 + 3.1 * rows)
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    if title:
        figure.suptitle(title, fontsize=12, color=INK)
    grid = figure.add_gridspec(rows, across)
    first: Axes | None = None
    named: set[str] = set()
    for index, variant in enumerate(shown):
        axes = figure.add_subplot(grid[index // across, index % across], sharey=first)
        first = first or axes
        _loss_panel(axes, [c for c in curves if c.variant == variant], rung_colours(curves))
        set_title(axes, variant)
        if index % across == 0:
            axes.set_ylabel("final validation loss (nats)")
        rungs = {c.rung for c in curves if c.variant == variant}
        if not rungs <= named:  # Another ladder has sizes of its own.
            draw_legend(axes)
        named |= rungs
    inks = variant_styles(shown)
    for index, name in enumerate(below):
        axes = figure.add_subplot(grid[above + index // across, index % across])
        _measure_panel(axes, curves, name, inks)
        if index == 0:
            draw_legend(axes)
    return figure


def rung_colours(curves: Sequence[Curve]) -> dict[str, str]:
    """One colour per rung: dark for small, light for large."""
    sizes = {curve.rung: curve.rung_n for curve in curves}
    inks = size_colours(list(sizes.values())) if sizes else {}
    return {rung: inks[n] for rung, n in sorted(sizes.items(), key=lambda item: item[1])}


def _loss_panel(axes: Axes, curves: Sequence[Curve], inks: Mapping[str, str]) -> None:
    set_quiet(axes)
    for curve in sorted(curves, key=lambda curve: curve.rung_n):
        ink, losses = inks[curve.rung], curve.losses
        axes.plot(losses.columns, losses.mean(), "-", color=ink, lw=1.7, label=f"size {curve.rung}")
        for _, own in losses.iterrows():
            axes.plot(own.index, own, "o", ms=3, color=ink, alpha=0.6)
        lost = curve.cells[curve.cells["diverged"]]
        axes.plot(lost["lr"], lost["loss_at_init"], "x", ms=7, color=DANGER)
    log_x(axes, "learning rate")


def _measure_panel(
    axes: Axes, curves: Sequence[Curve], name: str, styles: Mapping[str, Style]
) -> None:
    set_quiet(axes)
    measure = MEASURES[name]
    for variant, (ink, marker, line) in styles.items():
        own = sorted((c for c in curves if c.variant == variant), key=lambda c: c.n_params)
        points = [(c.n_params, *_interval(c, name)) for c in own]
        points = [point for point in points if point[1] == point[1]]
        if not points:
            continue
        n, value, low, high = (list(column) for column in zip(*points, strict=True))
        axes.plot(n, value, line, marker=marker, ms=5, color=ink, label=variant)
        axes.vlines(n, low, high, color=ink, lw=1.2)
        axes.fill_between(n, low, high, color=ink, alpha=0.1, lw=0)
    log_x(axes, PARAMETERS)
    if name == "best_lr":
        log_y(axes)
        axes.set_ylabel("best learning rate")
    else:
        axes.set_ylabel(f"{LABELS.get(name, measure.words)} ({measure.unit})", fontsize=9)
    if name in ("sensitivity", "high_side"):
        axes.set_ylim(bottom=0)


def _interval(curve: Curve, name: str) -> tuple[float, float, float]:
    if name == "sensitivity":
        result = whole(curve)
        return result.value, result.low, result.high
    measure = MEASURES[name]
    found = pooled([measure.of(curve)], sd=measure.sd)
    numbers = (found.value, found.low, found.high)
    if name == "best_lr":
        value, low, high = (10**number for number in numbers)
        return value, low, high
    return numbers
