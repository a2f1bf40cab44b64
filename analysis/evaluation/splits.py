"""Which runs of the bank predictors are fitted on, and which they never see until they are scored.

Fixed in this file before any predictor was fitted; `tests/analysis/test_splits.py` holds the
constants. Nothing is tuned on a split other than `fit`.
"""

from typing import Final

import numpy as np
import pandas as pd

FIT_WIDTHS: Final = (16, 32, 48, 64)
HELD_OUT_WIDTHS: Final = {96: "size 2x", 128: "size 4x", 256: "size 16x"}
"""Splits of the widths beyond those, by their factor in N over the largest of them."""
FIT_SWITCHES: Final = (
    "model.depth",
    "model.head_dim",
    "data.sequence_length",
    "batch_size",
    "schedule.warmup_steps",
    "steps",
)
"""Fields whose changes predictors may learn from."""
HELD_OUT_SWITCHES: Final = (
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.epsilon",
    "loss.z_loss",
)
"""Interventions that they may not."""
PARTS: Final = {
    "text": "text",
    "images": "architecture",
    "ternary": "number format",
    "random-1": "random",
    "random-2": "random",
    "random-3": "random",
}
"""Splits of whole parts of the bank: another text, the image transformer, 1.58 bits, searches."""
SPLITS: Final = (
    "fit",
    *HELD_OUT_WIDTHS.values(),
    "intervention",
    "text",
    "architecture",
    "number format",
    "random",
)
PRESET_VALUES: Final = {
    "optimizer.weight_decay": 1e-4,
    "optimizer.clip_norm": 1.0,
    "optimizer.epsilon": 1e-8,
    "loss.z_loss": 0.0,
}
"""Values that are no intervention."""


def split_runs(trials: pd.DataFrame) -> pd.Series:
    """Returns the split of every run, indexed like trials; ValueError for a run of none.

    trials has the columns `part`, `size` and every config field by dotted path.
    """
    split = trials["part"].map(PARTS).fillna("").to_numpy(object)
    changed = np.zeros(len(trials), bool)
    for name in HELD_OUT_SWITCHES:
        changed |= ~np.isclose(trials[name].astype(float), PRESET_VALUES[name], atol=1e-12)
    split[(split == "") & changed] = "intervention"
    for width, name in HELD_OUT_WIDTHS.items():
        split[(split == "") & (trials["size"] == width)] = name
    split[(split == "") & trials["size"].isin(FIT_WIDTHS)] = "fit"
    if (split == "").any():
        sizes = sorted(map(float, trials.loc[split == "", "size"].unique()))
        raise ValueError(
            f"every run must belong to a split, got widths {sizes}, which none has; add them to "
            f"analysis.evaluation.splits before fitting anything."
        )
    return pd.Series(split, index=trials.index, name="split")
