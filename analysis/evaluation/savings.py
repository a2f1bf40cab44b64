"""What stopping runs early saves and costs: steps saved, healthy runs lost, the best run lost.

`runs` has one row per run, all of which were trained to their end, so that what stopping them would
have lost is known. Columns: `total_steps` (steps that were made), `stop_step` (NaN for never; at or
after `total_steps` nothing is stopped), `unstable`, `healthy` (a run may be neither), `final` (loss
at the end, nats; what isn't finite is infinite), `cluster` (see `analysis.stats.uncertainty`) and
the sweep that the run belongs to, `group` by default.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.stats.uncertainty import (
    Interval,
    Proportion,
    Statistic,
    bootstrap_interval,
    check_labels,
    clustered_proportion,
    proportion,
)

COLUMNS: Final = ("total_steps", "stop_step", "unstable", "healthy", "final", "cluster")


@dataclass(frozen=True, slots=True)
class Savings:
    """What one way of stopping runs saves and costs."""

    saved_unstable: Interval
    """Share of the steps of unstable runs that is saved; resampled over clusters."""
    saved: Interval
    """Share of all steps that is saved, whatever the run."""
    caught: Proportion
    """Unstable runs that are stopped; interval by cluster."""
    false_stops: Proportion
    """Healthy runs that are stopped; interval by cluster."""
    lead: float
    """Median share of its budget that a caught run has left at the stop; NaN where none is."""
    winners_stopped: Proportion
    """Sweeps whose best run is stopped, of those in `sweeps`."""
    regret: float
    """Largest regret of a sweep, nats: 0 where no winner is stopped, infinite where nothing is left
    of a sweep, NaN where there is none."""
    sweeps: pd.DataFrame
    """One row per sweep, as `sweep_regret` gives it."""


def savings(
    runs: pd.DataFrame,
    *,
    by: str = "group",
    level: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Savings:
    """Returns what stopping each run at its `stop_step` would have saved and cost.

    by names the column of the sweep; level, draws and seed are those of the intervals. Raises
    ValueError where a column is missing, or a run has no steps, stops before its start, or is both
    unstable and healthy.
    """
    frame = _clean(runs, by)
    unstable, healthy = frame[frame["unstable"]], frame[frame["healthy"]]
    sweeps = sweep_regret(runs, by=by)
    lost = int(sweeps["winner_stopped"].sum())

    def share(rows: pd.DataFrame) -> Interval:
        return bootstrap_interval(
            saved_share(rows), rows["cluster"], level=level, draws=draws, seed=seed
        )

    return Savings(
        saved_unstable=share(unstable),
        saved=share(frame),
        caught=clustered_proportion(unstable["stopped"], unstable["cluster"], level=level),
        false_stops=clustered_proportion(healthy["stopped"], healthy["cluster"], level=level),
        lead=_lead(unstable[unstable["stopped"]]),
        winners_stopped=proportion(lost, len(sweeps), level=level),
        regret=float(sweeps["regret"].max()),
        sweeps=sweeps,
    )


def savings_table(
    predictors: Mapping[str, pd.DataFrame], *, by: str = "group", level: float = 0.9
) -> pd.DataFrame:
    """Returns one row per predictor, indexed by its name; each has its frame of the same runs.

    Columns: `saved_unstable`, `saved`, `caught`, `false_stops`, `winners_stopped`, each also with
    `_low` and `_high`, and `lead`, `regret`. Raises ValueError as `savings` does.
    """
    rows = {name: _flat(savings(runs, by=by, level=level)) for name, runs in predictors.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("predictor")


def saved_steps(runs: pd.DataFrame) -> np.ndarray:
    """Returns the steps that stopping saves per run, from `total_steps` and `stop_step`."""
    total, stop = (runs[name].to_numpy(float) for name in ("total_steps", "stop_step"))
    return np.where(np.isnan(stop), 0.0, np.maximum(total - stop, 0.0))


def saved_share(runs: pd.DataFrame) -> Statistic:
    """Returns the share of the steps of given rows that is saved, as a statistic of those rows.

    Two of these, of the same runs stopped by two predictors, go into `paired_difference`.
    """
    saved, total = saved_steps(runs), runs["total_steps"].to_numpy(float)
    return lambda rows: float(saved[rows].sum() / total[rows].sum()) if len(rows) else math.nan


def sweep_regret(runs: pd.DataFrame, *, by: str = "group") -> pd.DataFrame:
    """Returns what the best run of each sweep lost, indexed by sweep.

    Columns: `n` runs, `stopped` of them, `best` final loss, `kept` (the best final loss of a run
    that isn't stopped; infinite where none is left), `regret` = kept - best, all in nats, and
    `winner_stopped` (all runs with the best loss are). Sweeps without any finite loss have no row.
    """
    frame = _clean(runs, by)
    kept = frame["final"].where(~frame["stopped"], math.inf)
    sweeps = frame.assign(kept=kept).groupby(by, observed=True)
    table = sweeps.agg(
        n=("final", "size"), stopped=("stopped", "sum"), best=("final", "min"), kept=("kept", "min")
    )
    table = table[np.isfinite(table["best"])]
    regret = table["kept"] - table["best"]
    return table.assign(regret=regret, winner_stopped=regret > 0)


def _lead(caught: pd.DataFrame) -> float:
    left = saved_steps(caught) / caught["total_steps"].to_numpy(float)
    return float(np.median(left)) if len(left) else math.nan


def _flat(found: Savings) -> dict[str, float]:
    """The numbers of a row of the table."""
    row: dict[str, float] = {}
    for name in ("saved_unstable", "saved", "caught", "false_stops", "winners_stopped"):
        part = getattr(found, name)
        row |= {name: part.value, f"{name}_low": part.low, f"{name}_high": part.high}
    return row | {"lead": found.lead, "regret": found.regret}


def _clean(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    """The checked runs with `stopped`, labels as booleans, and infinity for lost losses."""
    missing = [name for name in (*COLUMNS, by) if name not in runs]
    if missing:
        raise ValueError(f"runs must have the columns of savings, got none of {missing}; add them.")
    frame = runs[[*COLUMNS, by]].reset_index(drop=True)
    total, stop = frame["total_steps"].to_numpy(float), frame["stop_step"].to_numpy(float)
    if not (total > 0).all() or (stop < 0).any():
        raise ValueError("every run must have made steps, and none can stop before step 0.")
    if frame[by].isna().any():
        raise ValueError(f"every run must have a sweep, got {frame[by].isna().sum()} without {by}.")
    labels = {name: check_labels(frame[name]) for name in ("unstable", "healthy")}
    if (labels["unstable"] & labels["healthy"]).any():
        raise ValueError("no run can be both unstable and healthy; label the runs again.")
    final = frame["final"].to_numpy(float)
    final = np.where(np.isfinite(final), final, math.inf)
    return frame.assign(**labels, final=final, stopped=stop < total)
