"""What became of a run, fixed before any predictor was fitted: the labels of its excess loss.

The excess e is that of `analysis.measures.excess`; its best is the lowest mean over seeds that any
learning rate reached in the run's *group*: same size, same budget, same switches. A run that
stopped being finite has e = 1.

Runs never blow up at small scale: they plateau. So labels are about e, not about spikes or
infinities, and the level decides the result; headlines are repeated at every one of `LEVELS`.
"""

from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.measures.excess import DEGRADED, UNSTABLE, excess
from foretune.analysis.records.families import LR, settings
from foretune.analysis.stats.series import SMOOTHING, z_against_before

SIGMAS: Final = 4.0
"""A degraded run has also lost more than so many standard deviations between seeds."""
LEVELS: Final = (DEGRADED, 0.20, 0.30, UNSTABLE, 0.50)
"""Excesses at which every headline is repeated."""
LAST: Final = 0.2
"""Share of the steps over which a collapsed run's smoothed loss is at the reference or above."""
SPIKE_WINDOW: Final = 128
SPIKE_SIGMAS: Final = 6.0
SPIKY: Final = 0.01
"""Share of steps with a loss more than `SPIKE_SIGMAS` above the last `SPIKE_WINDOW`: spiky."""

DRAWN: Final = "random-"
"""Parts of a bank that begin so hold configurations drawn at random, each in a group of its own:
the search is the group, and its twin at a third of the learning rate says what the rate did."""


def label_runs(
    trials: pd.DataFrame, telemetry: pd.DataFrame, *, level: float = UNSTABLE
) -> pd.DataFrame:
    """Returns the labels of every run that ended by itself, indexed by run_id.

    trials has the columns of `analysis.records.schema`, and optionally `part`. Columns: `group` (an
    integer), `n_lrs` (learning rates in the group), `best`, `best_lr`, `excess`, `above` (learning
    rate above the best), and the labels `unstable` (at `level`), `degraded`, `doomed` (excess above
    the level whatever the cause), `collapsed`, `spiky`, `healthy` (none of unstable, degraded,
    doomed, collapsed), and `known`: a drawn configuration without a twin at a third of its rate has
    no cause, so where it lost more than `DEGRADED` it is neither unstable nor healthy, and
    predictors aren't scored on it. Runs that were stopped early have no label and no row.
    """
    ended = trials[trials["outcome"].isin(["finished", "diverged"])].reset_index(drop=True)
    drawn = _drawn(ended)
    group = _groups(ended, drawn)
    final = ended["final_val_loss"].where(~ended["diverged"], np.inf).to_numpy(float)
    runs = ended.assign(group=group, final=np.fmin(final, ended["reference_loss"]))
    # Drawn configurations differ in more than seeds: each is a cell of its own.
    runs["cell"] = np.where(drawn, np.arange(len(runs)), -1)
    runs = runs.merge(_best(runs), on="group", how="left")
    frame = runs[["run_id", "group", "n_lrs", "best", "best_lr"]].set_index("run_id")
    frame["excess"] = excess(runs["final"], best=runs["best"], reference=runs["reference_loss"])
    frame["above"] = (runs[LR] > runs["best_lr"] * (1 + 1e-9)).to_numpy()
    twin_better, has_twin = _twins(runs, drawn)
    past = frame["excess"].to_numpy() > level
    cause = np.where(drawn, twin_better, frame["above"])
    sigma = runs["size"].map(_seed_sigmas(runs)).to_numpy(float)
    noise = SIGMAS * sigma / (runs["reference_loss"] - runs["best"]).to_numpy(float)
    frame["unstable"] = past & cause
    frame["degraded"] = (frame["excess"] > np.fmax(DEGRADED, noise)) & cause
    frame["doomed"] = past
    curves = _curves(ended, telemetry)
    frame["collapsed"] = ended["diverged"].to_numpy() | curves["collapsed"].to_numpy(bool)
    frame["spiky"] = curves["spiky"].to_numpy(bool)
    frame["known"] = ~drawn | has_twin | (frame["excess"].to_numpy() <= DEGRADED)
    bad = frame[["unstable", "degraded", "doomed", "collapsed"]].any(axis=1)
    frame["healthy"] = ~bad & frame["known"]
    return frame


def _drawn(trials: pd.DataFrame) -> np.ndarray:
    parts = trials.get("part", pd.Series("", index=trials.index)).astype(str)
    return parts.str.startswith(DRAWN).to_numpy()


def _groups(trials: pd.DataFrame, drawn: np.ndarray) -> np.ndarray:
    """Numbers the groups: one configuration but for seed and learning rate, or one search."""
    fields = [name for name in [*settings(trials), "size"] if name != LR]
    keys = trials[fields].map(str).agg("|".join, axis=1)
    if drawn.any():
        keys = keys.where(~drawn, trials["part"].astype(str) if "part" in trials else "")
    return pd.factorize(keys)[0]


def _best(runs: pd.DataFrame) -> pd.DataFrame:
    """The lowest mean over seeds in every group, and the learning rate that reached it."""
    means = runs.groupby(["group", "cell", LR], as_index=False)["final"].mean()
    best = means.loc[means.groupby("group")["final"].idxmin()]
    counts = means.groupby("group")[LR].nunique().rename("n_lrs").reset_index()
    best = best.rename(columns={"final": "best", LR: "best_lr"}).drop(columns="cell")
    return best.merge(counts, on="group")


def _seed_sigmas(runs: pd.DataFrame) -> pd.Series:
    """Standard deviation of the final loss over seeds, pooled over a size's cells up to the best
    learning rate; NaN where no cell has two seeds."""
    calm = runs[runs[LR] <= runs["best_lr"] * (1 + 1e-9)]
    cells = calm.groupby(["size", "group", LR])["final"].agg(["var", "count"]).reset_index()
    cells = cells[cells["count"] > 1]
    freedom = cells["count"] - 1
    sums = (cells["var"] * freedom).groupby(cells["size"]).sum()
    return np.sqrt(sums / freedom.groupby(cells["size"]).sum())


def _twins(runs: pd.DataFrame, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the twin at a third of the learning rate ended with a lower loss, and is there."""
    better, there = np.zeros(len(runs), bool), np.zeros(len(runs), bool)
    searched = runs[drawn]
    for _, twins in searched.groupby(["part", "seed", "model.qk_norm"] if len(searched) else []):
        for index, run in twins.iterrows():
            near = twins[np.isclose(twins[LR], run[LR] / 3, rtol=0.01)]
            there[index] = bool(len(near))
            better[index] = bool(len(near)) and float(near["final"].iloc[0]) < run["final"]
    return better, there


def _curves(trials: pd.DataFrame, telemetry: pd.DataFrame) -> pd.DataFrame:
    """Whether each run's training loss collapsed or spiked, in the order of trials."""
    by_run = {run_id: rows["loss"] for run_id, rows in telemetry.groupby("run_id", observed=True)}
    rows = []
    for run_id, reference in zip(trials["run_id"], trials["reference_loss"], strict=True):
        loss = by_run.get(run_id, pd.Series(dtype=float)).dropna()
        rows.append({"collapsed": _collapsed(loss, reference), "spiky": spike_score(loss) > SPIKY})
    return pd.DataFrame(rows)


def _collapsed(loss: pd.Series, reference: float) -> bool:
    smooth = loss.rolling(SMOOTHING, min_periods=1).mean()
    last = smooth.iloc[int((1 - LAST) * len(smooth)) :]
    return bool(len(last)) and bool((last >= reference).all())


def spike_score(loss: pd.Series) -> float:
    """Share of steps whose loss lies more than 6 deviations above the mean of the 128 before it.

    From the 64th step on, as OLMo-core's monitors do (Groeneveld et al. 2024).
    """
    values = loss.to_numpy(float)
    z = z_against_before(values, window=SPIKE_WINDOW, least=SPIKE_WINDOW // 2)
    return float((z > SPIKE_SIGMAS).sum() / len(values)) if len(values) else 0.0
