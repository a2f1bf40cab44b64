"""What else a sweep says of a size never run: best and highest stable rates, decay, first failure,
and the fix that moves them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.across_scale.cells import loss_crossings, scored_cells
from foretune.analysis.laws.critical_law import LOSS_PRIOR, fit_critical_lr
from foretune.analysis.laws.laws import Estimate
from foretune.analysis.measures.crossing import READ_WINDOW
from foretune.analysis.measures.excess import DEGRADED, UNSTABLE, WORTH
from foretune.analysis.measures.first_failure import first_failure_sentence, first_failures
from foretune.analysis.measures.labels import label_runs
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.twins import FIXES, twins_of
from foretune.analysis.records.families import LR, Family
from foretune.analysis.stats.regression import Prior
from foretune.analysis.stats.status import Status

BEST_PRIOR: Final = Prior((-2.0, -0.3), (10.0, 0.25), noise=0.12, worth=4.0, group_share=0.5)
"""Of the best learning rate: flatter and noisier than the critical one, for a loss is flat at its
optimum and the grid is coarse."""
DECAY: Final = "optimizer.weight_decay"


@dataclass(frozen=True, slots=True)
class Outlook:
    """Learning rates are per update; intervals as `critical_law` has them."""

    best_lr: Estimate
    """The learning rate with the lowest loss."""
    degraded_lr: Estimate
    """Where the loss has lost `DEGRADED` of what there was to gain."""
    unstable_lr: Estimate
    """Where it has lost `UNSTABLE`."""
    decay: str
    """Which decay was best beside it, a clause; empty where decay did not vary."""
    first: str
    """Which signal of which layer fails first, a clause."""
    fix: str
    """Which fix helped the unstable runs, a clause; empty without twins."""


def outlooks(
    trials: pd.DataFrame, telemetry: pd.DataFrame, family: Family, level: float
) -> Callable[[float], Outlook]:
    """Returns a family's outlook as a function of n_params, its laws fitted once.

    trials are all of the sweep's, since twins belong to other families. Every estimate says itself
    where it cannot tell.
    """
    own = family.trials[family.trials["outcome"].isin(["finished", "diverged"])]
    if own.empty:
        why = Status.cannot_tell("no run ended by itself")
        unknown = Estimate(math.nan, math.nan, math.nan, why)
        return lambda n_params: Outlook(unknown, unknown, unknown, "", "", "")
    cells = scored_cells(own, telemetry, signal=SIGNAL, window=READ_WINDOW)
    best = fit_critical_lr(best_rates(cells), level=level, prior=BEST_PRIOR)
    degraded, unstable = (
        fit_critical_lr(loss_crossings(cells, line), level=level, prior=LOSS_PRIOR)
        for line in (DEGRADED, UNSTABLE)
    )
    labels = label_runs(own, telemetry)
    failures = first_failures(own, telemetry, labels)
    decay, fix = _decay(trials, family), _fix(trials, labels)
    first = first_failure_sentence(failures, int(labels["unstable"].sum()))
    return lambda n_params: Outlook(
        best_lr=best.predict(n_params, level),
        degraded_lr=degraded.predict(n_params, level),
        unstable_lr=unstable.predict(n_params, level),
        decay=decay,
        first=first,
        fix=fix,
    )


def best_rates(cells: pd.DataFrame) -> pd.DataFrame:
    """Returns the best learning rate of every size, as `fit_critical_lr` wants it.

    Columns n_params, critical_lr, low, high: the vertex of the parabola through the best grid point
    of the seed means and its neighbours, over log learning rate; a best one at the grid's edge is a
    bound. cells has n_params, lr and loss.
    """
    return pd.DataFrame(
        [{"n_params": n, **_best_rate(group)} for n, group in cells.groupby("n_params")],
        columns=["n_params", "critical_lr", "low", "high"],
    )


def _best_rate(group: pd.DataFrame) -> dict[str, float]:
    means = group.groupby("lr")["loss"].mean().dropna()
    rates = np.log10(means.index.to_numpy(float))
    if len(means) < 2:
        return {"critical_lr": math.nan, "low": math.nan, "high": math.nan}
    at = int(means.to_numpy().argmin())
    if at == 0:
        return {"critical_lr": math.nan, "low": 0.0, "high": 10 ** rates[1]}
    if at == len(rates) - 1:
        return {"critical_lr": math.nan, "low": 10 ** rates[-2], "high": math.inf}
    x, y = rates[at - 1 : at + 2], means.to_numpy(float)[at - 1 : at + 2]
    a, b, _ = np.polyfit(x, y, 2)
    vertex = float(np.clip(-b / (2 * a), x[0], x[2])) if a > 0 else float(x[1])
    return {"critical_lr": 10**vertex, "low": 10 ** x[0], "high": 10 ** x[2]}


def _decay(trials: pd.DataFrame, family: Family) -> str:
    """The best decay at the largest size, where several were run beside the family's."""
    if DECAY not in trials or trials[DECAY].nunique() < 2:
        return ""
    others = {name: value for name, value in family.values.items() if name != DECAY}
    same = trials[trials["outcome"] == "finished"]
    for name, value in others.items():
        same = same[same[name].isna() if value is None else same[name].eq(value)]
    largest = same[same["size"] == same["size"].max()]
    means = largest.groupby([DECAY, LR])["final_val_loss"].mean().groupby(DECAY).min()
    if len(means) < 2:
        return ""
    best, ordered = means.idxmin(), means.sort_values()
    return (
        f"weight decay {best:g} was best at size {largest['size'].max():g}, by "
        f"{ordered.iloc[1] - ordered.iloc[0]:.3f} nats"
    )


def _fix(trials: pd.DataFrame, labels: pd.DataFrame) -> str:
    """How many of the family's unstable runs each fix helped, by their twins in the sweep."""
    unstable = labels.index[labels["unstable"]]
    said = []
    for fix, field in FIXES.items():
        if field not in trials:
            continue
        twins: Any = twins_of(trials[trials["outcome"] == "finished"], fix).set_index("run_id")
        nats = twins[twins.index.isin(unstable)]["benefit"]
        if len(nats):
            worth = int((nats > WORTH).sum())
            said.append(
                f"{fix} was worth more than {WORTH:g} nats in {worth} of {len(nats)} unstable runs "
                f"(mean {nats.mean():.2f})"
            )
    return "; ".join(said)
