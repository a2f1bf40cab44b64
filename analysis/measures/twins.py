"""Runs that differ in one fix alone, and what the fix is worth."""

from typing import Final

import numpy as np
import pandas as pd

from foretune.analysis.records.families import LR, settings

FIXES: Final = {"qk-layernorm": "model.qk_norm", "a third of the learning rate": LR}
"""What is changed in the twin, by the fix's name."""


TWIN_RATIO: Final = (2.7, 3.5)
"""A twin's learning rate is this many times lower: a third, or half a decade."""


def twins_of(trials: pd.DataFrame, fix: str) -> pd.DataFrame:
    """Returns the unfixed runs that have a twin, with `benefit`: nats that the fix was worth.

    trials has `final_val_loss`, `reference_loss` and the config's fields. Losses are capped at the
    reference.
    """
    capped = trials.assign(final=np.fmin(trials["final_val_loss"], trials["reference_loss"]))
    field = FIXES[fix]
    fields = [*settings(capped), "seed", "size"]
    same = [n for n in fields if n != field and capped[n].map(repr).nunique() > 1]
    if field == LR:
        pairs = _paired(capped, capped[[*same, LR, "final"]], same)
        pairs = pairs[(pairs[LR] / pairs[f"{LR}_twin"]).between(*TWIN_RATIO)]
    else:
        fixed = capped[capped[field].eq(True)]
        if fixed.empty:
            return capped.iloc[:0].assign(benefit=pd.Series(dtype=float))
        pairs = _paired(capped[capped[field].eq(False)], fixed[[*same, "final"]], same)
    return pairs.assign(benefit=pairs["final"] - pairs["final_twin"]).reset_index(drop=True)


def _paired(runs: pd.DataFrame, others: pd.DataFrame, same: list[str]) -> pd.DataFrame:
    """Every pair that is alike in some columns; of runs that nothing else tells apart, all."""
    how = {"on": same} if same else {"how": "cross"}
    return runs.merge(others, suffixes=("", "_twin"), **how)
