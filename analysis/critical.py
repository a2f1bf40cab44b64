"""The critical learning rate of every family, size and seed of a sweep."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.crossing import (
    CANNOT_TELL,
    PENALTY,
    READ_WINDOW,
    Crossing,
    critical_lr,
    excess_lr,
    penalty_lr,
)
from analysis.families import LR, families, twin_of
from analysis.schema import UNFINISHED

SIGNAL: Final = "max_attention_logit"
READ_WINDOWS: Final = ((0.02, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
"""Where `window_check` reads. The first is the analogue of the paper's step 2e3 of 1e5, and lies
inside warm-up."""
CELL: Final = MappingProxyType(
    {
        "run_id": "str",
        "lr": "float64",
        "seed": "int64",
        "size": "float64",
        "n_params": "float64",
        "value": "float64",
        "censored": "bool",
        "n_reads": "int64",
        "loss": "float64",
        "loss_at_init": "float64",
        "reference_loss": "float64",
        "outcome": "str",
    }
)
"""Columns of `read_signal` and their types, which hold for an empty table as well."""


def read_signal(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    signal: str = SIGNAL,
    window: tuple[float, float] = READ_WINDOW,
) -> pd.DataFrame:
    """Each run's signal and loss: one row per run, ready for `critical_lr` and `fit`.

    Columns `run_id`, `lr`, `seed`, `size`, `n_params`, `value` (geometric mean over the readings
    between the window's shares of the steps; averaging logs tames single-batch maxima), `censored`
    (the run ended before the window did, so the signal would have reached at least `value`),
    `n_reads`, `loss` (final validation loss capped at the loss at init, nats; NaN where the run was
    stopped early), `loss_at_init`, `reference_loss`, `outcome`. Unfinished and failed runs are left
    out.
    """
    start, end = window
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"window must be two increasing shares of the run between 0 and 1, got {window}; "
            "(0.75, 1.0) reads the last quarter"
        )
    kept = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    reads = _positive(telemetry, signal)
    by_run = dict(tuple(reads.groupby("run_id")))
    rows = [_cell(trial, by_run, window) for _, trial in kept.iterrows()]
    return pd.DataFrame(rows, columns=[*CELL]).astype(dict(CELL))


def _positive(telemetry: pd.DataFrame, signal: str) -> pd.DataFrame:
    if signal not in telemetry:
        return pd.DataFrame({"run_id": [], "step": [], "log": []})
    reads = telemetry[["run_id", "step", signal]].dropna()
    value = reads[signal].clip(lower=1e-12)
    return reads.assign(log=np.log10(value.to_numpy(float)))


def _cell(
    trial: pd.Series, by_run: dict[Any, pd.DataFrame], window: tuple[float, float]
) -> dict[str, Any]:
    reads = by_run.get(trial["run_id"])
    steps = float(trial.get("steps", np.nan))
    if not np.isfinite(steps):
        steps = float(trial["last_step"])
    value, count, early = np.nan, 0, trial["outcome"] != "finished"
    if reads is not None and len(reads):
        inside = reads[reads["step"].between(window[0] * steps, window[1] * steps)]
        chosen = inside if len(inside) else (reads.tail(1) if early else inside)
        count = len(chosen)
        value = float(10 ** chosen["log"].mean()) if count else np.nan
    return {
        "run_id": trial["run_id"],
        "lr": float(trial.get(LR, np.nan)),
        "seed": int(np.nan_to_num(trial.get("seed", 0))),
        "size": trial["size"],
        "n_params": trial["n_params"],
        "value": value,
        "censored": bool(early and trial["last_step"] < window[1] * steps),
        "n_reads": count,
        "loss": capped_loss(trial),
        "loss_at_init": trial["loss_at_init"],
        "reference_loss": trial["reference_loss"],
        "outcome": trial["outcome"],
    }


def capped_loss(trial: pd.Series) -> float:
    """A run's final validation loss, at most its loss at init, nats; NaN where it was stopped."""
    if trial["diverged"]:
        return float(trial["loss_at_init"])
    if trial["outcome"] == "stopped":
        return float("nan")
    return float(np.fmin(trial["final_val_loss"], trial["loss_at_init"]))


def critical_table(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    threshold: float,
    signal: str = SIGNAL,
    window: tuple[float, float] = READ_WINDOW,
    penalty: float = PENALTY,
) -> pd.DataFrame:
    """Critical learning rates per family, size and seed, tidy.

    Columns: the factors, `family`, `size`, `n_params`, `seed`; then `critical_lr low high status`
    for the signal, and the same four for the loss, `excess_lr excess_low excess_high excess_status`
    (above the curve's own best) and `penalty_lr penalty_low penalty_high penalty_status` (above the
    twin with the cure; `cannot tell` without a twin).
    """
    rows: list[dict[str, Any]] = []
    every = list(families(trials))
    for family in every:
        cells = read_signal(family.trials, telemetry, signal=signal, window=window)
        twin = twin_of(family, every, signal)
        twin_cells = None if twin is None else read_signal(twin.trials, telemetry, signal=signal)
        for (size, n_params, seed), group in cells.groupby(
            ["size", "n_params", "seed"], dropna=False
        ):
            where = {"family": family.label, "size": size, "n_params": n_params, "seed": seed}
            other = None if twin_cells is None else _same(twin_cells, size, seed)
            against = CANNOT_TELL if other is None else penalty_lr(group, other, penalty=penalty)
            rows.append(
                family.values
                | where
                | _named(critical_lr(group, threshold=threshold), "critical_lr low high status")
                | _named(excess_lr(group, penalty=penalty), _prefixed("excess"))
                | _named(against, _prefixed("penalty"))
            )
    names = ["critical_lr", "low", "high", "status"]
    names += _prefixed("excess").split() + _prefixed("penalty").split()
    empty = pd.DataFrame(columns=["family", "size", "n_params", "seed", *names])
    return pd.DataFrame(rows) if rows else empty


def _same(cells: pd.DataFrame, size: Any, seed: Any) -> pd.DataFrame:
    """The twin's cells; by size, since the cure's own gains add a few parameters."""
    return cells[(cells["size"] == size) & (cells["seed"] == seed)]


def _prefixed(kind: str) -> str:
    return f"{kind}_lr {kind}_low {kind}_high {kind}_status"


def _named(crossing: Crossing, names: str) -> dict[str, Any]:
    return dict(zip(names.split(), astuple(crossing), strict=True))


def window_check(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    threshold: float,
    signal: str = SIGNAL,
    windows: Sequence[tuple[float, float]] = READ_WINDOWS,
) -> pd.DataFrame:
    """How the critical learning rate moves with the part of the run that is read, tidy.

    Columns `start`, `end` (shares of the steps) before those of `critical_table`'s signal crossing.
    A conclusion that holds in one window only is about that window.
    """
    tables: Iterable[pd.DataFrame] = (
        critical_table(trials, telemetry, threshold=threshold, signal=signal, window=window).assign(
            start=window[0], end=window[1]
        )
        for window in windows
    )
    names = ["start", "end", "family", "size", "n_params", "seed"]
    return pd.concat(tables, ignore_index=True)[[*names, "critical_lr", "low", "high", "status"]]
