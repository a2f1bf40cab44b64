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

from analysis.families import LR, families
from analysis.schema import UNFINISHED

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
    status: str


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
    n_lr = cells["lr"].nunique()
    if cells.empty:
        return _cannot_tell("no trial has a loss and a loss at init", 0, 0)
    mean = _losses(cells, "middle").groupby(cells["lr"]).mean()
    best_lr, best_loss = float(mean.idxmin()), float(mean.min())
    if n_lr < 2:
        reason = f"one learning rate ({best_lr:g}) has no sensitivity; sweep two or more"
        return _cannot_tell(reason, cells["seed"].nunique(), n_lr, best_lr, best_loss)
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


def _clean(frame: pd.DataFrame, level: float) -> pd.DataFrame:
    missing = {"lr", "loss", "loss_at_init"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"the frame must have columns lr, loss and loss_at_init, got {list(frame.columns)}; "
            f"add {', '.join(sorted(missing))}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.9 gives 90 % intervals")
    size = len(frame)
    cells = pd.DataFrame(
        {
            "lr": frame["lr"].to_numpy(float),
            "loss": frame["loss"].to_numpy(float),
            "start": frame["loss_at_init"].to_numpy(float),
            "seed": frame["seed"].to_numpy() if "seed" in frame else np.zeros(size, int),
            "diverged": _flags(frame, "diverged"),
            "censored": _flags(frame, "censored"),
        }
    )
    if not np.all(np.isfinite(cells["lr"]) & (cells["lr"] > 0)):
        bad = cells["lr"][~(cells["lr"] > 0) | ~np.isfinite(cells["lr"])].tolist()
        raise ValueError(f"lr must be positive and finite, got {bad[0]}; remove that trial")
    known = cells["start"][np.isfinite(cells["start"])]
    cells["start"] = cells["start"].where(np.isfinite(cells["start"]), known.mean())
    lost = cells["diverged"] | ~np.isfinite(cells["loss"])
    cells["loss"] = cells["loss"].where(~lost, np.inf)
    # Without any loss at init there is no cap, and a lost run has no value: leave it out.
    cells["start"] = cells["start"].fillna(np.inf)
    return cells[np.isfinite(np.minimum(cells["loss"], cells["start"]))]


def _flags(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        return np.zeros(len(frame), bool)
    return frame[name].fillna(False).to_numpy(bool)


def _curves(cells: pd.DataFrame) -> list[pd.DataFrame]:
    """The seeds that have the whole grid; else all seeds as one, averaged per learning rate."""
    grid = cells["lr"].nunique()
    seeds = [curve for _, curve in cells.groupby("seed") if curve["lr"].nunique() == grid]
    return seeds or [cells]


def _losses(cells: pd.DataFrame, end: str) -> pd.Series:
    """Final losses capped at the loss at init; a censored one at one end of its bounds."""
    capped = np.minimum(cells["loss"], cells["start"])
    if end == "low":
        return capped.where(~cells["censored"], capped.min())
    if end == "high":
        return capped.where(~cells["censored"], cells["start"].where(cells["start"] < np.inf))
    return capped


def _mean_loss_above_best(curve: pd.DataFrame, end: str) -> float:
    best = _losses(curve, "middle").groupby(curve["lr"]).mean().min()
    return float(_losses(curve, end).groupby(curve["lr"]).mean().mean() - best)


def _margin(values: np.ndarray, level: float) -> float:
    """Half-width of the interval of the mean over seeds."""
    df = SEED_SD_WORTH + len(values) - 1
    squares = SEED_SD_WORTH * SEED_SD**2 + float(((values - values.mean()) ** 2).sum())
    quantile = float(special.stdtrit(df, (1 + level) / 2))
    return quantile * math.sqrt(squares / df / len(values))


def _status(cells: pd.DataFrame, n_curves: int) -> str:
    if n_curves > 1:
        text = f"ok: Student's t over {n_curves} seeds, with a prior of {SEED_SD} nats"
    else:
        text = f"ok: one seed, so the interval rests on a prior of {SEED_SD} nats between seeds"
    partial = cells["seed"].nunique() - n_curves
    if partial and n_curves > 1:
        text += f"; {partial} seeds without the whole grid are left out"
    elif partial:
        text += "; no seed has the whole grid, so each learning rate is averaged over its seeds"
    censored = int(cells["censored"].sum())
    if censored:
        text += f"; {censored} stopped early and count from the best loss to the loss at init"
    return text


def _cannot_tell(
    reason: str, seeds: int, n_lr: int, lr: float = math.nan, loss: float = math.nan
) -> Sensitivity:
    nan = math.nan
    return Sensitivity(nan, nan, nan, lr, loss, seeds, n_lr, f"cannot tell: {reason}")


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
