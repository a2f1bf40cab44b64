"""The law of the critical learning rate: a power of the number of parameters."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.laws.laws import Estimate, reach
from foretune.analysis.stats.predictive import Belief
from foretune.analysis.stats.regression import Posterior, Prior, regress
from foretune.analysis.stats.status import Status

PRIOR: Final = Prior(mean=(-2.0, -0.5), sd=(10.0, 0.25), noise=0.06, worth=4.0, group_share=0.25)
"""Slope and noise as measured on the byte language model at widths 16 to 256 (head dim 16)."""
LOSS_PRIOR: Final = Prior((-2.0, -0.4), (10.0, 0.2), noise=0.06, worth=4.0, group_share=0.5)
"""For the learning rate at which loss suffers: it falls a little more slowly than the signal's, and
the optimum that it counts from lies between grid points, differently at each size."""


@dataclass(frozen=True, slots=True)
class CriticalLaw:
    """log10 critical LR = a + slope * log10 N; `status` is ok or cannot tell."""

    slope: float
    """Dex of learning rate per decade of N."""
    slope_low: float
    slope_high: float
    level: float
    """Share of the posterior between `slope_low` and `slope_high`."""
    smallest: float
    largest: float
    n_sizes: int
    n_measured: int
    n_bounded: int
    """Critical rates known only as lying beyond the grid."""
    residuals: tuple[float, ...]
    """log10 measured / fitted of each crossing, in the order given, dex."""
    prior: str
    status: Status
    centre: float = math.nan
    posterior: Posterior | None = None

    def predict(self, n_params: float, level: float = 0.9) -> Estimate:
        """The critical learning rate of one new run at a size, with its interval."""
        status = self._status(n_params)
        if self.posterior is None or not status.can_tell:
            return Estimate(math.nan, math.nan, math.nan, status)
        numbers = self.believe(n_params).interval(level)
        median, low, high = (float(10**number) for number in numbers)
        return Estimate(median, low, high, status)

    def believe(self, n_params: float) -> Belief:
        """What is believed of log10 critical learning rate of one new run, if there is a law."""
        if self.posterior is None:
            raise ValueError(f"a law must have been fitted, got {self.status}")
        return self.posterior.believe(self._row(n_params))

    def probability_unstable(self, n_params: float, lr: float) -> float:
        """Probability that the critical learning rate lies below `lr`; NaN if it cannot tell."""
        if self.posterior is None or not self._status(n_params).can_tell:
            return math.nan
        return self.believe(n_params).below(math.log10(lr))

    @property
    def horizon(self) -> str:
        """The range of sizes for which the law claims to hold."""
        if self.posterior is None:
            return "no law could be fitted"
        return (
            f"fitted on {self.n_sizes} sizes from {self.smallest:,.0f} to {self.largest:,.0f} "
            f"parameters; claims to hold up to {16 * self.largest:,.0f}, warns beyond, and cannot "
            f"tell past {64 * self.largest:,.0f}"
        )

    def _row(self, n_params: float) -> np.ndarray:
        return np.array([1.0, math.log10(n_params) - self.centre])

    def _status(self, n_params: float) -> Status:
        if self.posterior is None:
            return self.status
        return reach(n_params, self.smallest, self.largest)


def fit_critical_lr(
    frame: pd.DataFrame, *, level: float = 0.9, prior: Prior = PRIOR
) -> CriticalLaw:
    """The law through the critical learning rates of several sizes.

    `frame` has columns `n_params`, `critical_lr` and optionally `seed`, `low`, `high` (as
    `critical_table` gives them). One row is one size and seed. A row whose `critical_lr` is NaN
    enters as lying between its `low` and `high` where those say anything, else it is left out.
    Conjugate Bayesian regression with that prior; the predictive is Student's t.
    Needs crossings at two sizes or more.
    """
    missing = {"n_params", "critical_lr"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"the frame must have columns n_params and critical_lr, got {list(frame.columns)}; add "
            f"{', '.join(sorted(missing))}"
        )
    known = _bounds(frame)
    exact = known["low"] == known["high"]
    left_out = len(frame) - len(known)
    sizes = known["n_params"][exact].nunique()
    if sizes < 2:
        return _no_law(known, sizes, int(exact.sum()), left_out, level, prior)
    n = np.log10(known["n_params"].to_numpy(float))
    centre = float((n.min() + n.max()) / 2)
    design = np.stack([np.ones_like(n), n - centre], axis=1)
    low, high = known["low"].to_numpy(float), known["high"].to_numpy(float)
    posterior = regress(design, low, high, pd.factorize(known["n_params"])[0], prior)
    slope, slope_low, slope_high = posterior.coefficient(1, level)
    residuals = (low - design @ posterior.mean)[exact.to_numpy()]
    return CriticalLaw(
        slope=slope,
        slope_low=slope_low,
        slope_high=slope_high,
        level=level,
        smallest=float(known["n_params"].min()),
        largest=float(known["n_params"].max()),
        n_sizes=known["n_params"].nunique(),
        n_measured=int(exact.sum()),
        n_bounded=int((~exact).sum()),
        residuals=tuple(float(residual) for residual in residuals),
        prior=prior_text(prior),
        status=_status(sizes, int(exact.sum()), int((~exact).sum()), left_out),
        centre=centre,
        posterior=posterior,
    )


def _bounds(frame: pd.DataFrame) -> pd.DataFrame:
    """log10 bounds of each critical learning rate; rows that bound nothing are dropped."""
    value = frame["critical_lr"].to_numpy(float)
    measured = np.isfinite(value) & (value > 0)
    low = frame["low"].to_numpy(float) if "low" in frame else np.full(len(frame), np.nan)
    high = frame["high"].to_numpy(float) if "high" in frame else np.full(len(frame), np.nan)
    low, high = (np.where(measured, value, bound) for bound in (low, high))
    informative = measured | (low > 0) | (np.isfinite(high) & (high > 0))
    with np.errstate(divide="ignore"):
        bounds = {"low": np.log10(np.where(low > 0, low, 0.0)), "high": np.log10(high)}
    known = pd.DataFrame({"n_params": frame["n_params"].to_numpy(float), **bounds})
    return known[informative & np.isfinite(known["n_params"])].reset_index(drop=True)


def prior_text(prior: Prior) -> str:
    """What a law's prior says, a clause."""
    oddity = prior.noise * math.sqrt(prior.group_share)
    return (
        f"prior: slope {prior.mean[1]:g} +/- {prior.sd[1]:g} dex per decade of N, noise "
        f"{prior.noise:g} dex (10-20 % between seeds) worth "
        f"{prior.worth:g} observations, a size's own oddity {oddity:.2g} dex"
    )


def _status(sizes: int, measured: int, bounded: int, left_out: int) -> Status:
    text = f"{measured} crossings at {sizes} sizes"
    if sizes == 2:
        text += ", which the prior on the slope has to help"
    if bounded:
        text += f"; {bounded} more lie beyond the grid and enter as bounds"
    if left_out:
        text += f"; {left_out} could not be told and are left out"
    return Status.ok(text)


def _no_law(
    known: pd.DataFrame, sizes: int, measured: int, left_out: int, level: float, prior: Prior
) -> CriticalLaw:
    reason = (
        f"the critical learning rate was crossed inside the grid at {sizes} "
        f"size{'' if sizes == 1 else 's'}, and a law needs two; widen the grid or add sizes"
    )
    nan = math.nan
    bounded = len(known) - measured
    reason += f" ({left_out} could not be told)" if left_out else ""
    status = Status.cannot_tell(reason)
    return CriticalLaw(
        nan, nan, nan, level, nan, nan, sizes, measured, bounded, (), prior_text(prior), status
    )
