"""The critical learning rate of every family, size and seed of a sweep."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import Any, Final, cast

import pandas as pd

from foretune.analysis.measures.crossing import (
    CANNOT_TELL,
    READ_WINDOW,
    Crossing,
    above_best_lr,
    critical_lr,
    penalty_lr,
)
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.signal import SIGNAL, read_signal
from foretune.analysis.records.families import families, twin_of

READ_WINDOWS: Final = ((0.02, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
"""Where `window_check` reads. The first is the analogue of the paper's step 2e3 of 1e5, and lies
inside warm-up."""


def critical_table(
    trials: pd.DataFrame,
    telemetry: pd.DataFrame,
    *,
    threshold: float,
    signal: str = SIGNAL,
    window: tuple[float, float] = READ_WINDOW,
    penalty: float = WORTH,
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
        for where, group in _by_cell(cells):
            other = None if twin_cells is None else _same(twin_cells, where["size"], where["seed"])
            against = CANNOT_TELL if other is None else penalty_lr(group, other, penalty=penalty)
            rows.append(
                family.values
                | {"family": family.label}
                | where
                | _named(critical_lr(group, threshold=threshold), "critical_lr low high status")
                | _named(above_best_lr(group, penalty=penalty), _prefixed("excess"))
                | _named(against, _prefixed("penalty"))
            )
    names = ["critical_lr", "low", "high", "status"]
    names += _prefixed("excess").split() + _prefixed("penalty").split()
    empty = pd.DataFrame(columns=["family", "size", "n_params", "seed", *names])
    return pd.DataFrame(rows) if rows else empty


def _by_cell(cells: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Size, parameters and seed, and the runs that have them."""
    names = ["size", "n_params", "seed"]
    for values, group in cells.groupby(names, dropna=False):
        yield dict(zip(names, cast(tuple, values), strict=True)), group


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
    names = ["start", "end", "family", "size", "n_params", "seed"]
    rows = [
        {"start": window[0], "end": window[1], "family": family.label}
        | where
        | _named(critical_lr(group, threshold=threshold), "critical_lr low high status")
        for window in windows
        for family in families(trials)
        for where, group in _by_cell(
            read_signal(family.trials, telemetry, signal=signal, window=window)
        )
    ]
    return pd.DataFrame(rows, columns=[*names, "critical_lr", "low", "high", "status"])
