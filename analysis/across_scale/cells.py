"""What a family's runs measured, ready to be forecast: runs, critical learning rates and labels."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from foretune.analysis.measures.crossing import Crossing, critical_lr, excess_crossing
from foretune.analysis.measures.labels import label_runs
from foretune.analysis.measures.signal import read_signal
from foretune.analysis.records.families import LR, families


def scored_cells(
    trials: pd.DataFrame, telemetry: pd.DataFrame, *, signal: str, window: tuple[float, float]
) -> pd.DataFrame:
    """Every run's signal (`read_signal`) with its `excess` and whether it was at a rate `above` the
    best, as `label_runs` has them.

    ValueError where the trials are none, or of several families: each has laws of its own.
    """
    kept = trials.drop(columns="part", errors="ignore")
    kept = kept[kept["outcome"].isin(["finished", "diverged"])]
    labels = [family.label for family in families(kept)]
    if len(labels) != 1:
        raise ValueError(
            f"a backtest across scale must be given ended runs of one family, got "
            f"{'; '.join(labels) or 'none'}; select one."
        )
    cells = read_signal(kept, telemetry, signal=signal, window=window)
    # One family: nothing but size, learning rate and seed tells its groups apart.
    plain = kept[[name for name in kept if "." not in name or name == LR]]
    excesses = label_runs(plain, telemetry)[["excess", "above"]]
    return cells.merge(excesses, left_on="run_id", right_index=True)


def origins(cells: pd.DataFrame, least: int = 2) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Runs up to each size but the largest, and the runs beyond; at least `least` sizes of them."""
    sizes = np.sort(cells["n_params"].unique())
    for largest in sizes[least - 1 : -1]:
        fitted = cells["n_params"] <= largest
        yield cells[fitted], cells[~fitted]


def signal_crossings(cells: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The critical learning rate of every size and seed, as `fit_critical_lr` wants it."""
    rows = [
        _row(n_params, critical_lr(group, threshold=threshold, smooth=True)) | {"seed": seed}
        for (n_params, seed), group in cells.groupby(["n_params", "seed"])
    ]
    return pd.DataFrame(rows)


def loss_crossings(cells: pd.DataFrame, level: float) -> pd.DataFrame:
    """The learning rate at which each size's mean excess meets a level."""
    rows = [_row(n, excess_crossing(group, level)) for n, group in cells.groupby("n_params")]
    return pd.DataFrame(rows)


def _row(n_params: float, found: Crossing) -> dict[str, float]:
    return {
        "n_params": n_params,
        "critical_lr": found.value,
        "low": found.low,
        "high": found.high,
    }


def cell_labels(cells: pd.DataFrame, level: float) -> pd.DataFrame:
    """Per size and learning rate: `truth` (most seeds lost more than a level above the optimum),
    mean `excess`, `n_seeds`, and `steps`.

    `steps` counts grid steps from the edge at which `truth` changes: 0 for its two neighbours.
    """
    past = (cells["excess"] > level) & cells["above"]
    grouped = cells.assign(past=past).groupby(["n_params", "lr"])
    frame = grouped.agg(
        share=("past", "mean"), excess=("excess", "mean"), n_seeds=("seed", "nunique")
    ).reset_index()
    frame["truth"] = frame["share"] > 0.5
    frame["steps"] = frame.groupby("n_params")["truth"].transform(_steps_from_edge)
    return frame.drop(columns="share")


def _steps_from_edge(truth: pd.Series) -> np.ndarray:
    first = int(np.argmax(truth.to_numpy())) if truth.any() else len(truth)
    place = np.arange(len(truth))
    return np.where(place >= first, place - first, first - 1 - place)
