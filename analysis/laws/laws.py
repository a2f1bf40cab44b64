"""Fitted laws: a signal over size and learning rate, with its interval and horizon."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.laws.averaging import AVERAGED, fit_average
from foretune.analysis.laws.surfaces import FITS, Surface
from foretune.analysis.stats.predictive import Belief
from foretune.analysis.stats.status import Status

CAUTION_BEYOND: Final = 16.0
"""Extrapolation, as a factor in N, past which a law warns: nothing further was ever confirmed."""
REFUSE_BEYOND: Final = 64.0
"""Extrapolation past which a law says that it cannot tell."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, and how far it can be trusted.

    The interval is for one new run at a size that was not fitted. All three numbers are NaN where
    the law cannot tell.
    """

    median: float
    low: float
    high: float
    status: Status


@dataclass(frozen=True, slots=True)
class Form:
    """What a form is, and how much it needs before its shape is the data's and not the prior's."""

    about: str
    sizes: int
    rates: int = 1
    refuses: bool = True
    """Whether it refuses fewer sizes; else it answers from its prior and says so."""


FORMS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "per-lr-linear": Form("a line in log N at each learning rate", 2),
        "per-lr-quadratic": Form("a parabola in log N at each learning rate", 3),
        "bilinear": Form("linear in log N and log LR, with their product", 2, 2),
        "full-quadratic": Form("quadratic in log N and log LR together", 3, 3),
        "varying-coefficient": Form(
            "a line in log N at each learning rate that borrows from its neighbours, with shrunk "
            "curvature",
            sizes=3,
            refuses=False,
        ),
        "sliding": Form("one curve in log LR that slides along it as N grows", 3, 3, refuses=False),
        "averaged": Form(f"the average of {', '.join(AVERAGED)}, by evidence", 3, refuses=False),
    }
)
"""The names that `fit` knows. Wortsman et al. (arXiv 2309.14322, figure 9) use the parabola."""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted form; `predict` answers for any size and learning rate it can speak about."""

    form: str
    lrs: tuple[float, ...]
    smallest: float
    largest: float
    n_cells: int
    residuals: tuple[float, ...]
    """log10 measured / fitted of each uncensored cell, in the order given, dex."""
    surface: Surface
    status: Status

    def predict(self, n_params: float, lr: float, level: float = 0.9) -> Estimate:
        """The signal of one new run, with an interval that holds `level` of such runs."""
        status = self.reach(n_params, lr)
        if not status.can_tell:
            return Estimate(math.nan, math.nan, math.nan, status)
        numbers = self.believe(n_params, lr).interval(level)
        median, low, high = (float(10**number) for number in numbers)
        return Estimate(median, low, high, status)

    def believe(self, n_params: float, lr: float) -> Belief:
        """What is believed of the log10 signal of one new run, wherever it is asked for."""
        return self.surface.believe(math.log10(n_params), math.log10(lr))

    def reach(self, n_params: float, lr: float) -> Status:
        """How far a size and a learning rate lie from the fitted ones, as a status."""
        if not self.lrs[0] * (1 - 1e-9) <= lr <= self.lrs[-1] * (1 + 1e-9):
            return Status.cannot_tell(
                f"learning rate {lr:g} lies outside the fitted {self.lrs[0]:g} to {self.lrs[-1]:g}"
            )
        status = reach(n_params, self.smallest, self.largest)
        if status.is_ok and not self.status.is_ok:
            return Status.caution(f"{self.status.reason}; {status.reason}")
        return status


def fit(cells: pd.DataFrame, form: str = "per-lr-linear") -> Law:
    """A law of a positive signal over size and learning rate.

    `cells` has columns `n_params`, `lr`, `value`, and optionally `censored` (the run ended early,
    so its signal is at least `value`) and `size_id` (cells that share a size's oddities; default
    `n_params`). Fitted on logs. The polynomial forms by conjugate regression with pooled noise and
    weak priors (slope in log N ~ N(0, 1), curvature ~ N(0, 0.3) dex per squared decade, noise 0.08
    dex); the others as `analysis.laws.varying` and `analysis.laws.averaging` say.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}; choose one")
    known = _clean(cells)
    short = _shortage(known, form)
    n = np.log10(known["n_params"].to_numpy(float))
    log_lr = np.log10(known["lr"].to_numpy(float))
    value = np.log10(known["value"].to_numpy(float))
    exact = ~known["censored"].to_numpy(bool)
    groups = pd.factorize(known["size_id"])[0]
    surface = (FITS.get(form) or fit_average)(n, log_lr, value, exact, groups)
    return Law(
        form=form,
        lrs=tuple(float(rate) for rate in np.unique(known["lr"].to_numpy(float))),
        smallest=float(known["n_params"].min()),
        largest=float(known["n_params"].max()),
        n_cells=len(known),
        residuals=tuple(float(r) for r in (value - surface.fitted)[exact]),
        surface=surface,
        status=_fit_status(known, len(cells), short),
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


def _shortage(known: pd.DataFrame, form: str) -> str:
    """What a form lacks, a clause; ValueError where it cannot do without."""
    needs, sizes, rates = FORMS[form], known["n_params"].nunique(), known["lr"].nunique()
    if sizes >= needs.sizes and rates >= needs.rates:
        return ""
    wanted = f"{needs.sizes} sizes"
    if needs.rates > 1:
        wanted += f" and {needs.rates} learning rates"
    got = f"{sizes} and {rates}" if needs.rates > 1 else str(sizes)
    if needs.refuses or sizes < 2:
        least = wanted if needs.refuses else "2 sizes"
        raise ValueError(
            f"form {form} needs at least {least}, got {got}; add cells or choose a simpler form"
        )
    return f"curvature comes from the prior alone, since it takes {wanted} to see it, got {got}"


def _fit_status(known: pd.DataFrame, given: int, short: str) -> Status:
    text = f"{len(known)} cells at {known['n_params'].nunique()} sizes"
    if known["censored"].any():
        text += f", {int(known['censored'].sum())} of them known only from below"
    if given > len(known):
        text += f"; {given - len(known)} cells without a positive finite value are left out"
    return Status.caution(f"{text}; {short}") if short else Status.ok(text)


def reach(n_params: float, smallest: float, largest: float) -> Status:
    """How far a size lies from the fitted ones, as a status."""
    if not (math.isfinite(n_params) and n_params > 0):
        raise ValueError(f"n_params must be positive and finite, got {n_params}; count parameters")
    factor = max(n_params / largest, smallest / n_params)
    side = "above the largest" if n_params > largest else "below the smallest"
    if factor <= 1:
        return Status.ok("within the fitted sizes")
    where = f"{factor:.3g} times {side} fitted size"
    if factor > REFUSE_BEYOND:
        return Status.cannot_tell(f"{where}, and the limit is {REFUSE_BEYOND:g} times")
    if factor > CAUTION_BEYOND or n_params < smallest:
        return Status.caution(f"{where}, where no such forecast has been checked")
    return Status.ok(where)
