"""Records with planted effects, as frames: no disk, no training."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foretune.analysis.records.load import Records

RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
STEPS = 100
LOSS_AT_INIT = 6.0
REFERENCE = 3.1
FORMATS = {
    "full precision": ("none", "mean", False),
    "full precision + norms": ("none", "mean", True),
    "ternary mean + norms": ("ternary", "mean", True),
    "ternary median + norms": ("ternary", "median", True),
}
"""Number formats by the name that they get, as quantization.format, .scale and .norm."""

Run = Mapping[str, Any]
"""A run's width, lr, seed and its variant's fields by dotted path."""


def records(
    variants: Iterable[Mapping[str, Any]] = ({},),
    *,
    widths: Iterable[int] = (16, 32, 64),
    lrs: Iterable[float] = RATES,
    seeds: Iterable[int] = (0, 1, 2),
    loss: Callable[[Run], float] = lambda run: 2.0,
    columns: Mapping[str, Callable[[Run, np.ndarray], np.ndarray]] | None = None,
    changes: Callable[[Run], Mapping[str, Any]] = lambda run: {},
) -> Records:
    """A sweep of variants x widths x learning rates x seeds.

    `loss` gives the final loss of a run, `columns` telemetry from the run and its steps, `changes`
    what else its row in the trials says.
    """
    trials, rows = [], []
    steps = np.arange(0, STEPS, 5)
    grid = product(variants, widths, lrs, seeds)
    for number, (fields, width, lr, seed) in enumerate(grid):
        run = {"width": width, "lr": lr, "seed": seed, **fields}
        final = float(loss(run))
        trials.append(_trial(run, fields, f"run{number}", final) | dict(changes(run)))
        own = {"loss": np.full(len(steps), final)}
        own |= {name: of(run, steps) for name, of in (columns or {}).items()}
        rows.append(pd.DataFrame({"run_id": f"run{number}", "step": steps, **own}))
    return Records(Path(), {}, pd.DataFrame(trials), pd.concat(rows, ignore_index=True), "")


def _trial(run: Run, fields: Mapping[str, Any], name: str, final: float) -> dict[str, Any]:
    return {
        "run_id": name,
        "size": float(run["width"]),
        "n_params": float(36 * run["width"] ** 2),
        "loss_at_init": LOSS_AT_INIT,
        "final_val_loss": final,
        "reference_loss": REFERENCE,
        "diverged": False,
        "outcome": "finished",
        "last_step": float(STEPS),
        "steps": STEPS,
        "seed": run["seed"],
        "optimizer.lr": run["lr"],
        **fields,
    }


def noise(run: Run, sd: float) -> float:
    """The same number for the same run, whatever else is in the sweep."""
    key = zlib.crc32(repr(sorted(run.items())).encode())
    return float(sd * np.random.default_rng(key).normal())


def decades(run: Run) -> float:
    """log10 of the learning rate over 1e-2."""
    return float(np.log10(run["lr"] / 1e-2))


def log_n(run: Run) -> float:
    """log10 of N over that of width 16."""
    return float(2 * np.log10(run["width"] / 16))


def by_name(answer) -> dict[str, Any]:
    """The claims of an answer by name; each is a plain sentence without a NaN."""
    for claim in answer.claims:
        assert "nan" not in claim.sentence.lower().split()
        assert "+nan" not in claim.sentence
        assert "Source A" in claim.sentence or claim.sentence.startswith("Rule")
        assert all(np.isfinite(number) for number in claim.numbers.values())
    answer.figure.canvas.draw()
    return {claim.name: claim for claim in answer.claims}
