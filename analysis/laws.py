"""Fitted laws: a signal over size and learning rate, with its interval and horizon."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from analysis.regression import Array, Posterior, Prior, regress

CAUTION_BEYOND: Final = 16.0
"""Extrapolation, as a factor in N, past which a law warns: nothing further was ever confirmed."""
REFUSE_BEYOND: Final = 64.0
"""Extrapolation past which a law says that it cannot tell."""
NOISE: Final = 0.08
"""Prior noise of one signal, dex, worth 4 observations; the size effect has variance 0.4 of it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `status` begins with `ok`, `caution` or `cannot tell`.

    The interval is for one new run at a size that was not fitted. All three numbers are NaN where
    the law cannot tell.
    """

    median: float
    low: float
    high: float
    status: str


@dataclass(frozen=True, slots=True)
class Form:
    """How log10 signal depends on n = log10 N and l = log10 learning rate."""

    degree: int
    """Of the polynomial in n."""
    per_lr: bool
    """One polynomial per learning rate; else a plane with an interaction, over all of them."""
    about: str


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "per-lr-linear": Form(1, True, "a line in log N at each learning rate"),
        "per-lr-quadratic": Form(2, True, "a parabola in log N at each learning rate"),
        "bilinear": Form(1, False, "linear in log N and log LR, with their product"),
    }
)
"""The names that `fit` knows. Wortsman et al. (arXiv 2309.14322, figure 9) use the parabola."""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted form; `predict` answers for any size and learning rate it can speak about."""

    form: str
    lrs: tuple[float, ...]
    centre: float
    """log10 N at which the polynomials are centred."""
    smallest: float
    largest: float
    n_cells: int
    residuals: tuple[float, ...]
    """log10 measured / fitted of each uncensored cell, in the order given, dex."""
    posterior: Posterior
    status: str

    def predict(self, n_params: float, lr: float, level: float = 0.9) -> Estimate:
        """The signal of one new run, with an interval that holds `level` of such runs."""
        inside = self.lrs[0] * (1 - 1e-9) <= lr <= self.lrs[-1] * (1 + 1e-9)
        if not inside:
            return _nothing(
                f"learning rate {lr:g} lies outside the fitted {self.lrs[0]:g} to {self.lrs[-1]:g}"
            )
        status = reach(n_params, self.smallest, self.largest)
        if status.startswith("cannot tell"):
            return Estimate(math.nan, math.nan, math.nan, status)
        numbers = self._log_prediction(math.log10(n_params) - self.centre, lr, level)
        median, low, high = (float(10**number) for number in numbers)
        return Estimate(median, low, high, status)

    def _log_prediction(self, n: float, lr: float, level: float) -> Array:
        form = FORMS[self.form]
        rates = np.log10(self.lrs)
        at = math.log10(lr)
        if not form.per_lr:
            row = _columns(form, np.array([n]), np.array([at]), rates)[0]
            return np.array(self.posterior.predict(row, level))
        # Between two fitted learning rates, logs are interpolated: each has its own line.
        rows = _columns(form, np.full(len(rates), n), rates, rates)
        known = np.array([self.posterior.predict(row, level) for row in rows])
        return np.array([np.interp(at, rates, known[:, i]) for i in range(3)])


def fit(cells: pd.DataFrame, form: str = "per-lr-linear") -> Law:
    """A law of a positive signal over size and learning rate.

    `cells` has columns `n_params`, `lr`, `value`, and optionally `censored` (the run ended early,
    so its signal is at least `value`) and `size_id` (cells that share a size's oddities; default
    `n_params`). Fitted on logs by conjugate regression with pooled noise; weak priors: slope in
    log N ~ N(0, 1), curvature ~ N(0, 0.3) dex per squared decade, noise `NOISE`.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}; choose one")
    known = _clean(cells)
    shape = FORMS[form]
    n = np.log10(known["n_params"].to_numpy(float))
    log_lr = np.log10(known["lr"].to_numpy(float))
    rates = np.unique(log_lr)
    sizes = known["n_params"].nunique()
    if sizes < shape.degree + 1 or (not shape.per_lr and len(rates) < 2):
        raise ValueError(
            f"form {form} needs at least {shape.degree + 1} sizes"
            f"{'' if shape.per_lr else ' and 2 learning rates'}, got {sizes} and {len(rates)}; add "
            "cells or choose a simpler form"
        )
    centre = float((n.min() + n.max()) / 2)
    design = _columns(shape, n - centre, log_lr, rates)
    value = np.log10(known["value"].to_numpy(float))
    censored = known["censored"].to_numpy(bool)
    groups = pd.factorize(known["size_id"])[0]
    posterior = regress(
        design, value, np.where(censored, np.inf, value), groups, _prior(shape, len(rates))
    )
    return Law(
        form=form,
        lrs=tuple(float(rate) for rate in np.unique(known["lr"].to_numpy(float))),
        centre=centre,
        smallest=float(known["n_params"].min()),
        largest=float(known["n_params"].max()),
        n_cells=len(known),
        residuals=tuple(float(r) for r in (value - design @ posterior.mean)[~censored]),
        posterior=posterior,
        status=_fit_status(known, len(cells)),
    )


def _clean(cells: pd.DataFrame) -> pd.DataFrame:
    missing = {"n_params", "lr", "value"} - set(cells.columns)
    if missing:
        raise ValueError(
            f"cells must have columns n_params, lr and value, got {list(cells.columns)}; add "
            f"{', '.join(sorted(missing))}"
        )
    numbers = cells[["n_params", "lr", "value"]].to_numpy(float)
    kept = cells[(np.isfinite(numbers) & (numbers > 0)).all(axis=1)]
    if kept.empty:
        raise ValueError(
            f"cells must have positive finite values, got none in {len(cells)} rows; was the "
            "signal recorded?"
        )
    return pd.DataFrame(
        {
            "n_params": kept["n_params"],
            "lr": kept["lr"],
            "value": kept["value"],
            "censored": kept.get("censored", False),
            "size_id": kept.get("size_id", kept["n_params"]),
        }
    )


def _columns(form: Form, n: Array, log_lr: Array, rates: Array) -> Array:
    """The design matrix: rows as given, one column per coefficient."""
    if not form.per_lr:
        return np.stack([np.ones_like(n), n, log_lr, n * log_lr], axis=1)
    powers = np.stack([n**power for power in range(form.degree + 1)], axis=1)
    member = (np.abs(log_lr[:, None] - rates[None, :]) < 1e-9).astype(float)
    return (member[:, :, None] * powers[:, None, :]).reshape(len(n), -1)


def _prior(form: Form, n_rates: int) -> Prior:
    sd = (100.0, 1.0, 0.3)[: form.degree + 1] * n_rates if form.per_lr else (100.0, 3.0, 3.0, 1.0)
    return Prior((0.0,) * len(sd), tuple(sd), NOISE, worth=4.0, group_share=0.4)


def _fit_status(known: pd.DataFrame, given: int) -> str:
    text = f"ok: {len(known)} cells at {known['n_params'].nunique()} sizes"
    if known["censored"].any():
        text += f", {int(known['censored'].sum())} of them known only from below"
    if given > len(known):
        text += f"; {given - len(known)} cells without a positive finite value are left out"
    return text


def _nothing(reason: str) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, f"cannot tell: {reason}")


def reach(n_params: float, smallest: float, largest: float) -> str:
    """How far a size lies from the fitted ones, as a status."""
    if not (math.isfinite(n_params) and n_params > 0):
        raise ValueError(f"n_params must be positive and finite, got {n_params}; count parameters")
    factor = max(n_params / largest, smallest / n_params)
    side = "above the largest" if n_params > largest else "below the smallest"
    if factor <= 1:
        return "ok: within the fitted sizes"
    where = f"{factor:.3g} times {side} fitted size"
    if factor > REFUSE_BEYOND:
        return f"cannot tell: {where}, and the limit is {REFUSE_BEYOND:g} times"
    if factor > CAUTION_BEYOND or n_params < smallest:
        return f"caution: {where}, where no such forecast has been checked"
    return f"ok: {where}"
