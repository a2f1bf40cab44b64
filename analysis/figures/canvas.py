"""What the figures share: panels, logarithmic axes with few ticks, legends, the danger line."""

from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK: Final = "#333333"
DANGER: Final = "#c0392b"


def panel_row(
    count: int, *, share_y: bool = False, width: float = 0.0, height: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels side by side; width and height in inches."""
    columns = max(1, count)
    figure = Figure(figsize=(width or 1.4 + 3.4 * columns, height), layout="constrained", dpi=160)
    grid = figure.subplots(1, columns, sharey=share_y, squeeze=False)
    panels = [axes for axes in grid[0]]
    for axes in panels:
        set_quiet(axes)
    return figure, panels


def set_quiet(axes: Axes) -> None:
    """Two spines, a pale grid behind the data, small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)


def set_title(axes: Axes, text: str) -> None:
    """The title of one panel."""
    axes.set_title(text, fontsize=10.5, color=INK)


def log_x(axes: Axes, text: str) -> None:
    """A logarithmic horizontal axis; call it after what is drawn."""
    axes.set_xscale("log")
    axes.set_xlabel(text)
    _few_ticks(axes.xaxis)


def log_y(axes: Axes) -> None:
    """A logarithmic vertical axis; call it after what is drawn."""
    axes.set_yscale("log")
    _few_ticks(axes.yaxis)


def _few_ticks(axis: Any) -> None:
    """Ticks at 1 and 3 of each decade over a short range, at decades over a long one."""
    low, high = axis.get_view_interval()
    short = high / max(low, 1e-30) < 2e3
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if short else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_locator(NullLocator())


def short_number(value: float, _: Any = None) -> str:
    """Thousands, millions and billions by letter, as ticks have them."""
    if value >= 1e9:
        return f"{value / 1e9:g}B"
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:g}"


LINE_LABEL: Final[dict[str, Any]] = {
    "xycoords": ("axes fraction", "data"),
    "xytext": (0, 3),
    "textcoords": "offset points",
    "fontsize": 8,
    "color": INK,
}
_WHITE: Final = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


def danger_line(axes: Axes, threshold: float, *, label: bool) -> None:
    """The line above which a signal means trouble."""
    axes.axhline(threshold, color=DANGER, lw=1.2, ls="--", zorder=1)
    if label:
        style = LINE_LABEL | {"color": DANGER, "bbox": _WHITE}
        axes.annotate(f"danger line {threshold:g}", (0.02, threshold), **style)


def draw_legend(axes: Axes) -> None:
    """The legend of what has a label, if anything has."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5, loc="best", labelcolor=INK)
