"""A telemetry column as powers of the learning rate, of N, and of the depth inside a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.claims.intervals import Interval, slope
from foretune.analysis.figures.canvas import INK, draw_legend, log_x, log_y, set_quiet, set_title
from foretune.analysis.figures.palette import size_colours
from foretune.analysis.measures.signal import read_signal
from foretune.analysis.wortsman.runs import Runs
from foretune.analysis.wortsman.styles import PARAMETERS, rate_colours

NOISE: Final = 0.06
"""Standard deviation of a log10 RMS between seeds, dex."""
KEYS: Final = ["rung", "rung_n", "n_params", "lr", "seed"]


def cells_of(runs: Runs, column: str, window: tuple[float, float]) -> pd.DataFrame:
    """log10 of a column of every run that ended, as `y`, beside its place (`KEYS`).

    Its geometric mean between two shares of the steps; runs that ended early, and values that are
    not positive, are left out. The sign of a column doesn't count.
    """
    if column not in runs.telemetry or not len(runs.trials):
        return runs.trials[KEYS].iloc[:0].assign(y=pd.Series(dtype=float))
    telemetry = runs.telemetry[["run_id", "step", column]].assign(
        **{column: lambda f: f[column].abs()}
    )
    read = read_signal(runs.trials, telemetry, signal=column, window=window)
    value = read["value"].to_numpy(float)
    known = np.isfinite(value) & (value > 1e-30) & ~read["censored"].to_numpy(bool)
    cells = runs.trials[KEYS].reset_index(drop=True)[known]
    return cells.assign(y=np.log10(value[known])).reset_index(drop=True)


def slope_in_lr(cells: pd.DataFrame, noise: float = NOISE) -> Interval:
    """Decades per decade of learning rate, inside sizes."""
    return slope(cells.assign(x=np.log10(cells["lr"].astype(float))), noise=noise, within="rung")


def slope_in_n(cells: pd.DataFrame, noise: float = NOISE) -> Interval:
    """Decades per decade of N, at equal learning rates."""
    x = np.log10(cells["n_params"].astype(float))
    return slope(cells.assign(x=x), noise=noise, within="lr")


def slope_in_block(cells: pd.DataFrame, noise: float = NOISE) -> Interval:
    """Decades per decade of 1 + the block's index, inside sizes and learning rates.

    `cells` has a column `block`, counted from 0.
    """
    place = cells["rung"].astype(str) + " " + cells["lr"].astype(str)
    x = np.log10(cells["block"].astype(float) + 1)
    return slope(cells.assign(x=x, place=place), noise=noise, within="place")


def by_block(runs: Runs, stem: str, window: tuple[float, float]) -> pd.DataFrame:
    """`cells_of` for every block's column stem{i}, with a column `block`."""
    tails = {name: name.removeprefix(stem) for name in runs.telemetry if name.startswith(stem)}
    parts = [
        cells_of(runs, name, window).assign(block=int(tail))
        for name, tail in tails.items()
        if tail.isdigit()
    ]
    parts = [part for part in parts if len(part)]
    empty = cells_of(runs, "", window).assign(block=pd.Series(dtype=int))
    return pd.concat(parts, ignore_index=True) if parts else empty


def means(cells: pd.DataFrame, name: str, by: Sequence[str] = ("rung", "lr")) -> pd.DataFrame:
    """Geometric means over seeds, a row per cell: the columns of `by`, n_params, name, n_seeds."""
    keys = ["rung_n", *by]
    table = cells.groupby(keys, as_index=False).agg(
        n_params=("n_params", "mean"), y=("y", "mean"), n_seeds=("seed", "nunique")
    )
    table[name] = 10 ** table.pop("y").astype(float)
    return table.drop(columns="rung_n").rename(columns={"rung": "size"})


@dataclass(frozen=True, slots=True)
class Panel:
    """Values against `x` (n_params, lr or block), a line per learning rate or size (`line`)."""

    cells: pd.DataFrame
    x: str
    line: str
    words: str
    levels: Mapping[str, float] | None = None
    """Horizontal lines by what they are called."""


X_WORDS: Final = {"n_params": PARAMETERS, "lr": "learning rate", "block": "block"}


def scaling_figure(panels: Sequence[Panel], title: str) -> Figure:
    """The panels side by side, on logarithmic axes."""
    figure = Figure(figsize=(1.2 + 3.8 * len(panels), 3.9), layout="constrained", dpi=130)
    figure.suptitle(title, fontsize=12, color=INK)
    drawn = list(figure.subplots(1, len(panels), squeeze=False)[0])
    seen = set()
    for axes, panel in zip(drawn, panels, strict=True):
        set_quiet(axes)
        set_title(axes, f"against {'N' if panel.x == 'n_params' else X_WORDS[panel.x]}")
        axes.set_ylabel(panel.words)
        axes.set_xlabel(X_WORDS[panel.x])
        if len(panel.cells):
            _draw(axes, panel)
        else:
            axes.annotate("not recorded", (0.3, 0.5), xycoords="axes fraction", color=INK)
        if panel.line not in seen:
            draw_legend(axes)
            seen.add(panel.line)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    cells = panel.cells
    if panel.line == "lr":
        inks = {
            lr: (ink, f"LR {lr:g}")
            for lr, ink in rate_colours(sorted(cells["lr"].unique())).items()
        }
    else:
        sizes = cells.groupby("rung")["rung_n"].first().sort_values()
        colours = size_colours(sizes.tolist())
        inks = {rung: (colours[n], f"size {rung}") for rung, n in sizes.items()}
    for key, (ink, label) in inks.items():
        own = cells[cells[panel.line] == key]
        along = "rung_n" if panel.x == "n_params" else panel.x
        mean = own.groupby(along)["y"].mean()
        axes.plot(mean.index, 10**mean, "-", color=ink, lw=1.5, label=label)
        axes.plot(own[along], 10 ** own["y"].astype(float), "o", ms=3, color=ink, alpha=0.6)
    for name, level in (panel.levels or {}).items():
        low, high = 10 ** cells["y"].min(), 10 ** cells["y"].max()
        if low / 30 < level < high * 30:
            axes.axhline(level, color=INK, lw=1, ls=":")
            axes.annotate(name, (0.7, level), xycoords=("axes fraction", "data"), fontsize=8)
    if panel.x != "block":
        log_x(axes, X_WORDS[panel.x])
    else:
        axes.set_xticks(sorted(cells["block"].unique()))
    log_y(axes)
