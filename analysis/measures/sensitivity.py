"""Learning-rate sensitivity: how much loss is lost, on average, by missing the best learning rate.

Wortsman et al. (arXiv 2309.14322), section 2.1: the mean over the grid of min(l, l0) - l*, with l
the final validation loss, l0 the loss at init and l* the best over the grid. It says nothing where
an intervention changes what a learning rate means, and belongs beside the curve of loss against
learning rate.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import special

from foretune.analysis.records.families import LR, families
from foretune.analysis.records.schema import UNFINISHED
from foretune.analysis.stats.status import Status

SEED_SD: Final = 0.03
"""Prior standard deviation of the sensitivity between seeds, nats. Measured on the byte language
model without qk-layernorm (200 steps, five rates, three seeds): 0.024, 0.022 and 0.038 at widths
16, 32 and 64."""
SEED_SD_WORTH: Final = 4.0
"""How many seeds that prior counts for."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """LR sensitivity of one family at one size, nats; `status` says what the interval covers."""

    value: float
    low: float
    high: float
    best_lr: float
    """The grid's learning rate with the lowest loss, averaged over seeds."""
    best_loss: float
    n_seeds: int
    n_lr: int
    status: Status


def lr_sensitivity(frame: pd.DataFrame, *, level: float = 0.9) -> Sensitivity:
    """LR sensitivity over a grid, with an interval over seeds and over what censoring hides.

    `frame` has columns `lr`, `loss` (final validation loss, nats), `loss_at_init`, and optionally
    `seed`, `diverged`, `censored`. A diverged or non-finite loss counts as the loss at init.
    A censored trial (stopped early) enters with its newest loss, and the interval lets it end
    anywhere between the grid's best loss and the loss at init. The interval is Student's t over
    seeds, whose variance starts from a prior of `SEED_SD` worth `SEED_SD_WORTH` seeds, so that one
    seed gives an interval as well.
    """
    cells = _clean(frame, level)
    curves = _curves(cells)
    n_lr = len(np.unique(cells.lr))
    if not n_lr:
        return _cannot_tell("no trial has a loss and a loss at init", 0, 0)
    lrs, mean = _means(cells.lr, cells.losses("middle"))
    best_lr, best_loss = float(lrs[mean.argmin()]), float(mean.min())
    if n_lr < 2:
        reason = f"one learning rate ({best_lr:g}) has no sensitivity; sweep two or more"
        return _cannot_tell(reason, cells.n_seeds, n_lr, best_lr, best_loss)
    values, lows, highs = (
        np.array([_mean_loss_above_best(curve, end) for curve in curves])
        for end in ("middle", "low", "high")
    )
    margin = _margin(values, level)
    return Sensitivity(
        value=float(values.mean()),
        low=max(0.0, float(lows.mean()) - margin),
        high=float(highs.mean()) + margin,
        best_lr=best_lr,
        best_loss=best_loss,
        n_seeds=len(curves),
        n_lr=n_lr,
        status=_status(cells, len(curves)),
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """Trials as arrays of one length: a figure asks for hundreds of sensitivities, and with frames
    each takes ten times as long."""

    lr: np.ndarray
    loss: np.ndarray
    """Infinite where the run was lost."""
    start: np.ndarray
    """Loss at init, infinite where no trial knows it."""
    seed: np.ndarray
    """The number of the trial's seed among those of the frame, -1 where it is missing."""
    censored: np.ndarray

    def where(self, kept: np.ndarray) -> "_Cells":
        """The cells for which `kept` holds."""
        arrays = (self.lr, self.loss, self.start, self.seed, self.censored)
        return _Cells(*(array[kept] for array in arrays))

    @property
    def seeds(self) -> np.ndarray:
        """The seeds, each once."""
        return np.unique(self.seed[self.seed >= 0])

    @property
    def n_seeds(self) -> int:
        return len(self.seeds)

    def losses(self, end: str) -> np.ndarray:
        """Final losses capped at the loss at init; a censored one at one end of its bounds."""
        capped = np.minimum(self.loss, self.start)
        if end == "low":
            return np.where(self.censored, capped.min(), capped)
        if end == "high":
            start = np.where(self.start < np.inf, self.start, np.nan)
            return np.where(self.censored, start, capped)
        return capped


def _clean(frame: pd.DataFrame, level: float) -> _Cells:
    missing = {"lr", "loss", "loss_at_init"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"the frame must have columns lr, loss and loss_at_init, got {list(frame.columns)}; "
            f"add {', '.join(sorted(missing))}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.9 gives 90 % intervals")
    lr, loss, start = (frame[n].to_numpy(float) for n in ("lr", "loss", "loss_at_init"))
    usable = np.isfinite(lr) & (lr > 0)
    if not usable.all():
        bad = lr[~usable].tolist()
        raise ValueError(f"lr must be positive and finite, got {bad[0]}; remove that trial")
    known = start[np.isfinite(start)]
    # Without any loss at init there is no cap, and a lost run has no value: leave it out.
    start = np.where(np.isfinite(start), start, known.mean() if len(known) else np.inf)
    loss = np.where(_flags(frame, "diverged") | ~np.isfinite(loss), np.inf, loss)
    seed = pd.factorize(frame["seed"])[0] if "seed" in frame else np.zeros(len(frame), int)
    cells = _Cells(lr, loss, start, seed, _flags(frame, "censored"))
    return cells.where(np.isfinite(np.minimum(loss, start)))


def _flags(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        return np.zeros(len(frame), bool)
    return frame[name].fillna(False).to_numpy(bool)


def _curves(cells: _Cells) -> list[_Cells]:
    """The seeds that have the whole grid; else all seeds as one, averaged per learning rate."""
    grid = len(np.unique(cells.lr))
    seeds = [cells.where(cells.seed == seed) for seed in cells.seeds]
    return [curve for curve in seeds if len(np.unique(curve.lr)) == grid] or [cells]


def _means(lr: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The learning rates with a known loss, ascending, and the mean of their losses."""
    known = ~np.isnan(losses)
    lrs, place = np.unique(lr[known], return_inverse=True)
    return lrs, np.bincount(place, weights=losses[known]) / np.bincount(place)


def _mean_loss_above_best(curve: _Cells, end: str) -> float:
    best = _means(curve.lr, curve.losses("middle"))[1].min()
    mean = _means(curve.lr, curve.losses(end))[1]
    return float(mean.mean() - best) if len(mean) else math.nan


def _margin(values: np.ndarray, level: float) -> float:
    """Half-width of the interval of the mean over seeds."""
    df = SEED_SD_WORTH + len(values) - 1
    squares = SEED_SD_WORTH * SEED_SD**2 + float(((values - values.mean()) ** 2).sum())
    quantile = float(special.stdtrit(df, (1 + level) / 2))
    return quantile * math.sqrt(squares / df / len(values))


def _status(cells: _Cells, n_curves: int) -> Status:
    if n_curves > 1:
        text = f"Student's t over {n_curves} seeds, with a prior of {SEED_SD} nats"
    else:
        text = f"one seed, so the interval rests on a prior of {SEED_SD} nats between seeds"
    partial = cells.n_seeds - n_curves
    if partial and n_curves > 1:
        text += f"; {partial} seeds without the whole grid are left out"
    elif partial:
        text += "; no seed has the whole grid, so each learning rate is averaged over its seeds"
    censored = int(cells.censored.sum())
    if censored:
        text += f"; {censored} stopped early and count from the best loss to the loss at init"
    return Status.ok(text)


def _cannot_tell(
    reason: str, seeds: int, n_lr: int, lr: float = math.nan, loss: float = math.nan
) -> Sensitivity:
    nan = math.nan
    return Sensitivity(nan, nan, nan, lr, loss, seeds, n_lr, Status.cannot_tell(reason))


def sensitivity_cells(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials as `lr_sensitivity` wants them; unfinished and failed ones are left out."""
    kept = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    lr = kept[LR] if LR in kept else pd.Series(dtype=float)
    return pd.DataFrame(
        {
            "lr": lr,
            "loss": kept["final_val_loss"],
            "loss_at_init": kept["loss_at_init"],
            "seed": kept.get("seed", 0),
            "diverged": kept["diverged"],
            "censored": kept["outcome"] == "stopped",
        }
    )


def sensitivity_table(trials: pd.DataFrame, *, level: float = 0.9) -> pd.DataFrame:
    """LR sensitivity of every family at every size, tidy, nats.

    Columns: the factors, `family`, `size`, `n_params`, `sensitivity`, `low`, `high`, `best_lr`,
    `best_loss`, `n_seeds`, `n_lr`, `high_side`, `status`. `high_side` is the same mean over the
    learning rates from the best one up: short runs are under-trained at the low end, which inflates
    the whole and hides its trend with size.
    """
    rows = []
    for family in families(trials):
        for (size, n_params), group in family.trials.groupby(["size", "n_params"], dropna=False):
            cells = sensitivity_cells(group)
            result = lr_sensitivity(cells, level=level)
            upper = lr_sensitivity(cells[cells["lr"] >= result.best_lr], level=level)
            rows.append(
                {
                    **family.values,
                    "family": family.label,
                    "size": size,
                    "n_params": n_params,
                    "sensitivity": result.value,
                    "low": result.low,
                    "high": result.high,
                    "best_lr": result.best_lr,
                    "best_loss": result.best_loss,
                    "n_seeds": result.n_seeds,
                    "n_lr": result.n_lr,
                    "high_side": upper.value,
                    "status": result.status,
                }
            )
    columns = "family size n_params sensitivity low high best_lr best_loss n_seeds n_lr high_side"
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*columns.split(), "status"])
