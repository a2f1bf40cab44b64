"""What the usual early stopping would have done: rules that see losses, on recorded curves.

All runs of a sweep are replayed side by side, each rule looking at the same step of all of them,
and never at a later one. `curves` has the columns `run_id`, `step` and a loss (`val_loss` by
default, nats; NaN where a step has no reading); `runs` has `run_id`, `total_steps` (steps that the
run made by itself) and the sweep, `group` by default. Each rule returns the step at which it stops
each run, NaN for never, indexed by run_id in the order of `runs`: `savings`' `stop_step`. Shares
are of the steps of a sweep's longest run; a run that ended by itself before is never stopped.

Array names end in their axes: S steps, R runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.stats.power_law import Ending, extrapolate

LOOKS: Final = tuple(round(0.1 * i, 1) for i in range(1, 10))
"""Shares of the budget at which learning curves are extrapolated."""
OTHERS: Final = 3
"""Other runs that a median needs, as in Ray Tune's rule."""


@dataclass(frozen=True, slots=True)
class SweepLosses:
    """The recorded losses of one sweep as a table."""

    steps_S: np.ndarray
    """Steps with a reading of any run, rising."""
    loss_SR: np.ndarray
    """Loss per step and run, nats; NaN where there is no reading."""
    total_R: np.ndarray
    """Steps that each run made."""

    def share(self, part: float) -> int:
        """Returns the first whole step at or after a share of the longest run."""
        # Blind to rounding: 0.1 * 3 * 100 is 30.000000000000004.
        return math.ceil(part * self.total_R.max() - 1e-9)

    def upto(self, step: float) -> np.ndarray:
        """Returns the readings up to a step, later ones unseen."""
        return self.loss_SR[: int(np.searchsorted(self.steps_S, step, side="right"))]

    def newest(self, step: float) -> np.ndarray:
        """Returns each run's newest reading at a step, nats; infinite where it has none."""
        newest_R = np.full(len(self.total_R), math.inf)
        for loss_R in self.upto(step):
            newest_R = np.where(np.isnan(loss_R), newest_R, loss_R)
        return newest_R


Rival = Callable[[SweepLosses], np.ndarray]


def successive_halving(
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    factor: int = 3,
    grace: float = 0.1,
    loss: str = "val_loss",
    by: str = "group",
) -> pd.Series:
    """Returns the stops of synchronous successive halving (Jamieson and Talwalkar 2016).

    This is ASHA (Li et al. 2020) with as many workers as runs. The first rung is at the share grace
    of the budget, each next one at factor times that. A rung keeps the best floor(n / factor) of
    the n runs that entered it, one at least, by their newest loss; equal ones in the order of
    `runs`. Runs that ended by themselves, or have no reading yet, count as the worst.
    """
    if factor < 2 or factor != int(factor):
        raise ValueError(f"factor must be a whole number from 2 on, got {factor}; 3 or 4 is usual.")
    _check_share(grace, "grace")

    def rule(sweep: SweepLosses) -> np.ndarray:
        stop_R = np.full(len(sweep.total_R), math.nan)
        entered, part = np.arange(len(stop_R)), grace
        while (rung := sweep.share(part)) < sweep.total_R.max():
            running = entered[sweep.total_R[entered] > rung]
            order = np.argsort(sweep.newest(rung)[running], kind="stable")
            keep = max(1, len(entered) // factor)
            stop_R[running[order[keep:]]] = rung
            entered, part = running[order[:keep]], part * factor
        return stop_R

    return _replay(rule, curves, runs, loss, by)


def median_stopping(
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    grace: float = 0.1,
    others: int = OTHERS,
    loss: str = "val_loss",
    by: str = "group",
) -> pd.Series:
    """Returns the stops of the median rule (Golovin et al. 2017, section 3.2.1).

    At each reading from the share grace on, a run is stopped whose best loss so far is above the
    median of the other runs' averages up to that step. Vizier asks the completed runs; here, as in
    Ray Tune, those that are still running count, if there are at least `others` of them.
    """
    _check_share(grace, "grace")
    if others < 1:
        raise ValueError(f"others must be 1 or more, got {others}; {OTHERS} is usual.")

    def rule(sweep: SweepLosses) -> np.ndarray:
        stop_R = np.full(len(sweep.total_R), math.nan)
        read_SR = ~np.isnan(sweep.loss_SR)
        # A run without a reading yet has an average of 0 here; it isn't compared.
        mean_SR = np.nancumsum(sweep.loss_SR, axis=0) / np.maximum(read_SR.cumsum(axis=0), 1)
        best_SR = np.fmin.accumulate(sweep.loss_SR, axis=0)
        for row in np.flatnonzero(sweep.steps_S >= sweep.share(grace)):
            step = sweep.steps_S[row]
            running = np.isnan(stop_R) & (sweep.total_R > step) & ~np.isnan(best_SR[row])
            if running.sum() <= others:
                continue
            worse = best_SR[row, running] > median_of_others(mean_SR[row, running])
            stop_R[np.flatnonzero(running)[worse]] = step
        return stop_R

    return _replay(rule, curves, runs, loss, by)


def curve_stopping(
    curves: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    confidence: float = 0.9,
    looks: Sequence[float] = LOOKS,
    loss: str = "val_loss",
    by: str = "group",
) -> pd.Series:
    """Returns the stops of learning-curve extrapolation (after Domhan et al. 2015).

    At each look, the runs that are still running are extrapolated to the end (see
    `analysis.stats.power_law`). The one with the lowest expected end leads; another is stopped if
    it ends above the leader's newest loss with at least the given confidence. The lowest loss that
    anyone ever read would be a harder bar, but one that noise sets.
    """
    _check_share(confidence, "confidence")
    for look in looks:
        _check_share(look, "every look")

    def rule(sweep: SweepLosses) -> np.ndarray:
        stop_R = np.full(len(sweep.total_R), math.nan)
        for step in sorted({sweep.share(look) for look in looks}):
            endings = _endings(sweep, step, np.isnan(stop_R) & (sweep.total_R > step))
            if not endings:
                continue
            leader = min(endings, key=lambda run: endings[run].mean)
            bar = sweep.newest(step)[leader]
            for run, ending in endings.items():
                if run != leader and ending.above(bar) >= confidence:
                    stop_R[run] = step
        return stop_R

    return _replay(rule, curves, runs, loss, by)


REPLAYS: Final = {
    "successive halving": successive_halving,
    "median": median_stopping,
    "learning curve": curve_stopping,
}


def median_of_others(values: np.ndarray) -> np.ndarray:
    """Returns for each value the median of all but itself; at least two values."""
    order = np.sort(values)
    rank = np.empty(len(values), int)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    low, high = (len(values) - 2) // 2, (len(values) - 1) // 2
    return (order[low + (low >= rank)] + order[high + (high >= rank)]) / 2


def _endings(sweep: SweepLosses, step: float, running_R: np.ndarray) -> dict[int, Ending]:
    """The extrapolated end of each running run with readings enough."""
    seen_SR, end = sweep.upto(step), float(sweep.total_R.max())
    steps_S, found = sweep.steps_S[: len(seen_SR)], {}
    for run in np.flatnonzero(running_R):
        read_S = ~np.isnan(seen_SR[:, run])
        ending = extrapolate(steps_S[read_S], seen_SR[read_S, run], end)
        if ending is not None:
            found[int(run)] = ending
    return found


def _replay(rule: Rival, curves: pd.DataFrame, runs: pd.DataFrame, loss: str, by: str) -> pd.Series:
    """The stops of a rule, sweep by sweep."""
    read = _clean(curves, runs, loss, by)
    stops = pd.Series(math.nan, index=pd.Index(runs["run_id"], name="run_id"), name="stop_step")
    sweep_of = runs.set_index("run_id")[by]
    tables = dict(iter(read.groupby(read["run_id"].map(sweep_of), observed=True)))
    for name, sweep in runs.groupby(by, observed=True):
        ids = sweep["run_id"].to_numpy()
        table = tables[name].pivot(index="step", columns="run_id", values=loss)[ids]
        total_R = sweep["total_steps"].to_numpy(float)
        stops.loc[ids] = rule(
            SweepLosses(table.index.to_numpy(float), table.to_numpy(float), total_R)
        )
    return stops


def _clean(curves: pd.DataFrame, runs: pd.DataFrame, loss: str, by: str) -> pd.DataFrame:
    """The finite readings; ValueError where a run has none, or two at one step."""
    for name, frame, columns in (
        ("curves", curves, ("run_id", "step", loss)),
        ("runs", runs, ("run_id", "total_steps", by)),
    ):
        missing = [column for column in columns if column not in frame]
        if missing:
            raise ValueError(
                f"{name} must have the columns {', '.join(columns)}, got no {missing}."
            )
    if runs[by].isna().any():
        raise ValueError(f"every run must have a sweep, got {runs[by].isna().sum()} without {by}.")
    if runs["run_id"].duplicated().any() or curves.duplicated(["run_id", "step"]).any():
        raise ValueError("every run and every step of a run must come once; drop the duplicates.")
    read = curves[np.isfinite(curves[loss].to_numpy(float))]
    silent = set(runs["run_id"]) - set(read["run_id"])
    if silent:
        raise ValueError(
            f"every run must have a finite {loss}, got none for {len(silent)}, such as "
            f"{min(map(str, silent))}; leave them out or name another loss."
        )
    return read


def _check_share(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value:g}.")
