"""Loss against learning rate of one variant at one rung, and what is read off such a curve."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.claims.claim import LOSS_SEED_SD
from foretune.analysis.claims.intervals import LEVEL
from foretune.analysis.measures.sensitivity import (
    SEED_SD,
    Sensitivity,
    lr_sensitivity,
    sensitivity_cells,
)
from foretune.analysis.wortsman.runs import Runs

Window = tuple[float, float]
"""A lowest and a highest learning rate."""
BEST_LR_SD: Final = 0.06
"""Standard deviation of the log10 best learning rate between seeds, dex: 0.054 over 36 curves of
the byte language model (widths 16 to 128, half-decade grid, three seeds)."""
HIGHEST: Final = 2
"""How many of the highest learning rates `high_loss` averages."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One variant at one rung; `cells` as `analysis.measures.sensitivity.lr_sensitivity` takes
    them."""

    variant: str
    rung: str
    rung_n: float
    n_params: float
    cells: pd.DataFrame
    losses: pd.DataFrame
    """Final losses, at most the loss at init: seed x learning rate; NaN where not known."""
    window: Window | None = None

    @property
    def lrs(self) -> list[float]:
        """The learning rates that were run."""
        return sorted(float(lr) for lr in self.cells["lr"].unique())

    def over(self, lrs: Sequence[float]) -> "Curve":
        """The same curve at these learning rates alone."""
        losses = self.losses[[lr for lr in lrs if lr in self.losses]]
        return replace(self, cells=self.cells[self.cells["lr"].isin(lrs)], losses=losses)

    def seeds(self) -> dict[int, pd.DataFrame]:
        """The cells of each seed that has the whole grid."""
        grid, cells = self.lrs, self.cells
        groups = {int(str(seed)): group for seed, group in cells.groupby("seed")}
        return {s: g for s, g in groups.items() if g.dropna()["lr"].nunique() == len(grid)}


def _losses(cells: pd.DataFrame) -> pd.DataFrame:
    lost = cells["diverged"] | ~np.isfinite(cells["loss"].to_numpy(float))
    loss = cells["loss"].where(~lost, np.inf).clip(upper=cells["loss_at_init"])
    known = cells.assign(value=loss.where(~cells["censored"] & np.isfinite(loss)))
    return known.pivot_table(index="seed", columns="lr", values="value")


def curves(runs: Runs, windows: Mapping[str, Sequence[Window]] | None = None) -> list[Curve]:
    """Every variant's curve at every rung.

    A variant with `windows` is shown over the one in which its sensitivity is smaller, as the paper
    does for coupled decay, whose best learning rate lies elsewhere (appendix B).
    """
    found = []
    for variant, rung, trials in runs.cells():
        cells = sensitivity_cells(trials).reset_index(drop=True)
        cells = cells[np.isfinite(cells["lr"].to_numpy(float))]
        first = trials.iloc[0]
        n_params = float(trials["n_params"].mean())
        curve = Curve(variant, rung, float(first["rung_n"]), n_params, cells, _losses(cells))
        options = (windows or {}).get(variant, ())
        found.append(_least_sensitive(curve, options) if len(cells) and options else curve)
    return [curve for curve in found if len(curve.cells)]


def _least_sensitive(curve: Curve, windows: Sequence[Window]) -> Curve:
    def inside(window: Window) -> Curve:
        low, high = window[0] * (1 - 1e-9), window[1] * (1 + 1e-9)
        return curve.over([lr for lr in curve.lrs if low <= lr <= high])

    parts = {window: inside(window) for window in windows}
    found = {w: lr_sensitivity(part.cells).value for w, part in parts.items() if len(part.cells)}
    found = {window: value for window, value in found.items() if math.isfinite(value)}
    if not found:
        return curve
    chosen = min(found, key=lambda window: found[window])
    return replace(parts[chosen], window=chosen)


def on_common_grid(left: Curve, right: Curve) -> tuple[Curve, Curve]:
    """Both curves at the learning rates that both have; a curve in a window keeps its own."""
    if left.window or right.window:
        return left, right
    grid = sorted(set(left.lrs) & set(right.lrs))
    return left.over(grid), right.over(grid)


def whole(curve: Curve, level: float = LEVEL) -> Sensitivity:
    """LR sensitivity over all seeds, nats."""
    return lr_sensitivity(curve.cells, level=level)


def sensitivity(curve: Curve) -> pd.Series:
    """LR sensitivity of each seed that has the whole grid, nats."""
    return _by_seed({s: lr_sensitivity(cells).value for s, cells in curve.seeds().items()})


def high_side(curve: Curve) -> pd.Series:
    """LR sensitivity from the best learning rate up, of each seed, nats."""
    best = best_grid_lr(curve)
    return sensitivity(curve.over([lr for lr in curve.lrs if lr >= best]))


def best_loss(curve: Curve) -> pd.Series:
    """Each seed's loss at the learning rate that is best over seeds, nats."""
    lr = best_grid_lr(curve)
    return curve.losses[lr].dropna() if lr in curve.losses else _by_seed({})


def high_loss(curve: Curve) -> pd.Series:
    """Each seed's mean loss at the two highest learning rates, nats."""
    highest = curve.losses.reindex(columns=curve.lrs[-HIGHEST:])
    return highest.mean(axis=1, skipna=False).dropna()


def best_grid_lr(curve: Curve) -> float:
    """The learning rate of the grid with the lowest loss over seeds; NaN where none is known."""
    mean = curve.losses.mean()
    return float(mean.idxmin()) if mean.notna().any() else math.nan  # pyright: ignore


def best_lr(curve: Curve) -> pd.Series:
    """log10 of each seed's best learning rate, refined; that of the grid's end where it is one."""
    return best_lrs(curve)["y"]


def best_lrs(curve: Curve) -> pd.DataFrame:
    """log10 best learning rate of each seed: columns y, low, high (equal where it is known).

    Refined by a parabola in log learning rate through the lowest point and its neighbours. At the
    grid's end all that is known is a bound: half a step inside the grid or beyond.
    """
    rows = {seed: _refined(cells) for seed, cells in curve.losses.iterrows()}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["y", "low", "high"])
    return frame.rename_axis("seed").dropna(subset=["y"])


def _refined(losses: pd.Series) -> tuple[float, float, float]:
    known = losses.dropna()
    x, y = np.log10(known.index.to_numpy(float)), known.to_numpy(float)
    if len(x) < 3:
        return math.nan, math.nan, math.nan
    i = int(y.argmin())
    if i == 0:
        return x[0], -math.inf, (x[0] + x[1]) / 2
    if i == len(x) - 1:
        return x[-1], (x[-2] + x[-1]) / 2, math.inf
    (a, b, _), centre = np.polyfit(x[i - 1 : i + 2] - x[i], y[i - 1 : i + 2], 2), x[i]
    best = centre - b / (2 * a) if a > 0 else centre
    return best, best, best


def _by_seed(values: Mapping[int, float]) -> pd.Series:
    return pd.Series(values, dtype=float).dropna().rename_axis("seed")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a curve, one per seed."""

    words: str
    unit: str
    of: Callable[[Curve], pd.Series]
    sd: float
    """Standard deviation between seeds that is believed beforehand."""
    same: float
    """A difference up to this counts as none, where the source found none."""
    digits: int = 3


MEASURES: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        "sensitivity": Measure("LR sensitivity", "nats", sensitivity, SEED_SD, 0.05),
        "high_side": Measure(
            "LR sensitivity from the best learning rate up", "nats", high_side, SEED_SD, 0.05
        ),
        "best_loss": Measure("the best loss", "nats", best_loss, LOSS_SEED_SD, 0.05),
        "high_loss": Measure(
            "the loss at the two highest learning rates", "nats", high_loss, LOSS_SEED_SD, 0.05
        ),
        "best_lr": Measure(
            "log10 of the best learning rate", "decades", best_lr, BEST_LR_SD, 0.15, 2
        ),
    }
)
"""What figures read off their curves, by name."""
