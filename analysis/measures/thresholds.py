"""The danger line of a signal: where it stands by default, and where these runs put it."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.measures.excess import DEGRADED, WORTH, excess, references
from foretune.analysis.stats.status import Status

PAPER_ATTENTION_LOGIT: Final = 1e4
"""Largest attention logit above which every run of Wortsman et al. (arXiv 2309.14322) diverged, at
2.4M to 4.8B parameters, head dim 64-128 and 1e5 steps. One forecast rests on it."""
ENOUGH: Final = 8
"""Runs of either label that `calibrate` asks for."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A danger line with its interval; `value` is NaN where the runs cannot tell."""

    value: float
    low: float
    high: float
    n_degraded: int
    """Runs past the best learning rate that lost more than the line asks for (see `evidence`)."""
    n_other: int
    status: Status
    evidence: str
    horizon: str


ATTENTION_LOGIT: Final = Threshold(
    value=100.0,
    low=100.0,
    high=1000.0,
    n_degraded=27,
    n_other=25,
    status=Status.ok("the default line for the largest attention logit"),
    evidence=(
        "in 52 runs of a byte language model without qk-layernorm (widths 16 to 256), a largest "
        f"logit above 100 went with an excess loss over {WORTH:g} nats past the best learning rate "
        "in 27 of 27 cases and without it in 1 of 25; any line from 100 to 1000 predicts as well, "
        "30 to 50 worse"
    ),
    horizon="head dim 16, context 64, byte language model, 200 to 500 steps",
)
"""Not the paper's 1e4: short runs of small models suffer a hundred times earlier."""


def label_degraded(
    cells: pd.DataFrame, *, reference: float | None = None, level: float = DEGRADED
) -> tuple[pd.Series, str]:
    """Returns whether each run is degraded (NA where nothing is known), and against what.

    `cells` has columns `lr`, `loss`, `loss_at_init`, `n_params` and optionally `family`,
    `reference_loss`. Degraded: past the best learning rate of its family and size, and an `excess`
    over `level`. Runs below the best learning rate are slow, not degraded. Nothing is known without
    a loss, nor where no learning rate got below the reference.
    """
    against, text = references(cells, reference)
    keys = [name for name in ("family", "n_params") if name in cells]
    means = cells.groupby([*keys, "lr"], as_index=False)["loss"].mean().dropna(subset="loss")
    optimum = means.loc[means.groupby(keys)["loss"].idxmin()].set_index(keys)
    best = cells[keys].join(optimum[["loss", "lr"]], on=keys)
    gain = against.where(against > best["loss"])
    share = pd.Series(excess(cells["loss"], best=best["loss"], reference=gain), cells.index)
    degraded = (share > level) & (cells["lr"] > best["lr"])
    known = degraded.astype("boolean").where(share.notna())
    return known, f"excess over {level:g} against {text}"


def calibrate(
    cells: pd.DataFrame,
    *,
    reference: float | None = None,
    excess_level: float = DEGRADED,
    level: float = 0.9,
    enough: int = ENOUGH,
) -> Threshold:
    """The line that separates degraded runs of one architecture from the others.

    `cells` as for `label_degraded`, and `value` (the signal, positive). The posterior of
    P(degraded) = 1 / (1 + exp(-(log10 signal - tau) / s)) on a grid, with priors tau ~ N(2, 1) and
    log s ~ N(log 0.15, 0.7) dex; the line is tau's median. With fewer than `enough` runs of either
    label it cannot tell.
    """
    usable = cells[(cells["value"] > 0) & np.isfinite(cells["value"]) & cells["loss"].notna()]
    found, against = label_degraded(usable, reference=reference, level=excess_level)
    degraded = found.dropna().to_numpy(bool)
    bad, good = int(degraded.sum()), int((~degraded).sum())
    horizon = "these runs' architecture, head dimension, context and steps"
    if bad < enough or good < enough:
        status = Status.cannot_tell(
            f"calibration needs {enough} degraded and {enough} other runs, got {bad} "
            f"and {good}; the default is {ATTENTION_LOGIT.value:g}, the paper's line "
            f"{PAPER_ATTENTION_LOGIT:g}"
        )
        return Threshold(math.nan, math.nan, math.nan, bad, good, status, against, horizon)
    x = np.log10(usable.loc[found.notna(), "value"].to_numpy(float))
    tail = (1 - level) / 2
    low, middle, high = (10**q for q in _tau(x, degraded, (tail, 0.5, 1 - tail)))
    status = Status.ok(f"a logistic over {bad} degraded and {good} other runs")
    horizon += (
        f" (between {low:.3g} and {high:.3g}; the forecast's intervals take the line as known)"
    )
    return Threshold(middle, low, high, bad, good, status, against, horizon)


def _tau(x: np.ndarray, degraded: np.ndarray, levels: tuple[float, ...]) -> list[float]:
    """Quantiles of the midpoint's posterior, log10 signal."""
    tau = np.linspace(x.min() - 1, x.max() + 1, 400)
    log_s = np.linspace(math.log(0.01), math.log(2.0), 60)
    sign = np.where(degraded, 1.0, -1.0)
    margin = (x[None, None, :] - tau[:, None, None]) / np.exp(log_s)[None, :, None] * sign
    prior = -0.5 * (tau[:, None] - 2) ** 2 - 0.5 * ((log_s[None, :] - math.log(0.15)) / 0.7) ** 2
    logp = prior - np.logaddexp(0, -margin).sum(axis=2)
    mass = np.exp(logp - logp.max()).sum(axis=1)
    cumulative = np.cumsum(mass) / mass.sum()
    return [float(np.interp(level, cumulative, tau)) for level in levels]
