"""Which signal of which layer goes wrong first: when a run leaves the range of the healthy ones."""

from typing import Final

import numpy as np
import pandas as pd

SIGNALS: Final = (
    "max_attention_logit_layer",
    "output_norm_rms_layer",
    "log_z_mean",
    "logits_rms",
    "grad_norm",
)
"""Columns that are watched, by how they begin."""
MARGIN: Final = 2.0
"""A signal has left the range where it is this many times the healthy runs' largest at the step."""
READINGS: Final = 3
"""Readings in a row that must lie outside: one batch's maximum is noisy."""


def first_failures(
    trials: pd.DataFrame, telemetry: pd.DataFrame, labels: pd.DataFrame
) -> pd.DataFrame:
    """Returns the signal that left first, per unstable run: `run_id`, `size`, `signal`, `step`.

    labels are those of `label_runs`, indexed by run_id. The range at a step is that of the healthy
    runs of the same group and size; runs of groups without any, and runs whose signals all stay
    inside, have no row.
    """
    columns = [name for name in telemetry.columns if str(name).startswith(SIGNALS)]
    by_run = {
        run_id: rows.set_index("step")[columns]
        for run_id, rows in telemetry.groupby("run_id", observed=True)
    }
    size = trials.set_index("run_id")["size"]
    rows = []
    for _, group in labels.groupby("group"):
        healthy = [by_run[name] for name in group.index[group["healthy"]] if name in by_run]
        if not healthy:
            continue
        limit = MARGIN * pd.concat(healthy).groupby("step").max()
        for name in group.index[group["unstable"]]:
            left = _first(by_run.get(name), limit)
            if left is not None:
                rows.append(
                    {"run_id": name, "size": size[name], "signal": left[0], "step": left[1]}
                )
    return pd.DataFrame(rows, columns=["run_id", "size", "signal", "step"])


def _first(run: pd.DataFrame | None, limit: pd.DataFrame) -> tuple[str, int] | None:
    """The column that was first outside for `READINGS` readings in a row, and since which step."""
    if run is None:
        return None
    found: list[tuple[int, str]] = []
    for name in run.columns:
        read = run[name].dropna()
        if len(read) < READINGS:  # A block that this run has not, say.
            continue
        bound = limit[name].reindex(read.index)
        outside = (read > bound).to_numpy()
        held = np.convolve(outside, np.ones(READINGS, int), mode="valid") >= READINGS
        if held.any():
            found.append((int(read.index[int(held.argmax())]), str(name)))
    if not found:
        return None
    step, name = min(found, key=lambda pair: pair[0])
    return name, step


def first_failure_sentence(failures: pd.DataFrame, unstable: int) -> str:
    """Returns what mostly goes first, with counts; says so where nothing does."""
    if failures.empty:
        return "no signal left the healthy runs' range first" if unstable else "no run was unstable"
    counts = failures["signal"].value_counts()
    name = str(counts.index[0])
    step = failures.loc[failures["signal"] == name, "step"].median()
    return (
        f"{describe_signal(name)} leaves the healthy runs' range first in {counts.iloc[0]} of "
        f"{unstable} unstable runs, at step {step:.0f} (median)"
    )


def describe_signal(column: str) -> str:
    """Returns a telemetry column in words: `the largest attention logit of block 0`."""
    words = {
        "max_attention_logit_layer": "the largest attention logit of block",
        "output_norm_rms_layer": "the output of block",
    }
    for stem, text in words.items():
        if column.startswith(stem):
            return f"{text} {column.removeprefix(stem)}"
    return {"log_z_mean": "log Z", "logits_rms": "the size of the output logits"}.get(
        column, "the gradient norm"
    )
