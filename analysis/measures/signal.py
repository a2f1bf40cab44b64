"""Whether runs recorded a signal at all, and what follows where they did not."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.measures.crossing import (
    READ_WINDOW,
)
from foretune.analysis.records.families import LR
from foretune.analysis.records.schema import UNFINISHED

WITHOUT_ATTENTION: Final = ("convnet", "torchvision")
"""Values of `model.kind` that have no attention."""
SIGNAL_WORDS: Final = {"max_attention_logit": "attention logits"}


def absence(trials: pd.DataFrame, telemetry: pd.DataFrame, signal: str) -> str:
    """Why these runs have no critical learning rate of this kind, a clause; empty where they may.

    Empty as well where no run has ended with telemetry: such runs may still record the signal.
    """
    ended = trials[~trials["outcome"].isin([UNFINISHED, "failed"])]
    own = telemetry[telemetry["run_id"].isin(ended["run_id"])]
    if own.empty or (signal in own and own[signal].notna().any()):
        return ""
    words = SIGNAL_WORDS.get(signal, signal)
    text = (
        f"no run recorded {signal}: a model without {words} has no critical learning rate of this "
        "kind"
    )
    kinds = set(ended["model.kind"]) if "model.kind" in ended else set()
    if kinds and kinds <= set(WITHOUT_ATTENTION):
        return text
    return f"{text}; a model of your own that has them shows them through a tap"


SIGNAL: Final = "max_attention_logit"
Reads = tuple[np.ndarray, np.ndarray]
"""Steps and base-10 logs of a signal, in the order in which it was read."""
NO_READS: Final[Reads] = (np.empty(0), np.empty(0))

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
READ: Final = (
    *("run_id", "outcome", "diverged", "last_step", "steps", LR, "seed", "size", "n_params"),
    *("final_val_loss", "loss_at_init", "reference_loss"),
)
"""What it reads of a trial, whose config may have a hundred columns more."""


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
    reads = _positive(telemetry[telemetry["run_id"].isin(kept["run_id"])], signal)
    rows = [
        _cell(trial, reads.get(trial["run_id"], NO_READS), window)
        for trial in kept[kept.columns.intersection(READ)].to_dict("records")
    ]
    return pd.DataFrame(rows, columns=[*CELL]).astype(dict(CELL))


def _positive(telemetry: pd.DataFrame, signal: str) -> dict[Any, Reads]:
    """The readings of each run, by run_id."""
    if signal not in telemetry:
        return {}
    reads = telemetry[["run_id", "step", signal]].dropna()
    steps = reads["step"].to_numpy(float)
    logs = np.log10(reads[signal].clip(lower=1e-12).to_numpy(float))
    return {run: (steps[at], logs[at]) for run, at in reads.groupby("run_id").indices.items()}


def _cell(trial: Mapping[Any, Any], reads: Reads, window: tuple[float, float]) -> dict[str, Any]:
    steps = float(trial.get("steps", np.nan))
    if not np.isfinite(steps):
        steps = float(trial["last_step"])
    early = trial["outcome"] != "finished"
    at, logs = reads
    chosen = logs[(window[0] * steps <= at) & (at <= window[1] * steps)]
    if early and not len(chosen):
        chosen = logs[-1:]
    return {
        "run_id": trial["run_id"],
        "lr": float(trial.get(LR, np.nan)),
        "seed": int(np.nan_to_num(trial.get("seed", 0))),
        "size": trial["size"],
        "n_params": trial["n_params"],
        "value": float(10 ** chosen.mean()) if len(chosen) else np.nan,
        "censored": bool(early and trial["last_step"] < window[1] * steps),
        "n_reads": len(chosen),
        "loss": capped_loss(trial),
        "loss_at_init": trial["loss_at_init"],
        "reference_loss": trial["reference_loss"],
        "outcome": trial["outcome"],
    }


def capped_loss(trial: Mapping[Any, Any] | pd.Series) -> float:
    """A run's final validation loss, at most its loss at init, nats; NaN where it was stopped."""
    if trial["diverged"]:
        return float(trial["loss_at_init"])
    if trial["outcome"] == "stopped":
        return float("nan")
    return float(np.fmin(trial["final_val_loss"], trial["loss_at_init"]))
