"""The splits are constants: who moves one after the fact has to move this file too."""

import pandas as pd
import pytest

from foretune.analysis.evaluation import splits
from foretune.analysis.measures import excess, labels

PRESET = {**splits.PRESET_VALUES, "part": "core", "size": 32.0}


def split(**changes):
    return splits.split_runs(pd.DataFrame([PRESET | changes])).item()


def test_what_was_fixed_before_anything_was_fitted():
    assert (excess.UNSTABLE, excess.DEGRADED, labels.SIGMAS) == (0.40, 0.10, 4.0)
    assert labels.LEVELS == (0.10, 0.20, 0.30, 0.40, 0.50)
    assert splits.FIT_WIDTHS == (16, 32, 48, 64)
    assert set(splits.HELD_OUT_SWITCHES) == {
        "optimizer.weight_decay",
        "optimizer.clip_norm",
        "optimizer.epsilon",
        "loss.z_loss",
    }
    assert not set(splits.FIT_SWITCHES) & set(splits.HELD_OUT_SWITCHES)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "fit"),
        ({"size": 96.0}, "size 2x"),
        ({"size": 128.0}, "size 4x"),
        ({"size": 256.0}, "size 16x"),
        ({"part": "switches", "optimizer.clip_norm": 0.0}, "intervention"),
        ({"part": "switches", "optimizer.epsilon": 1e-6}, "intervention"),
        ({"part": "switches", "optimizer.weight_decay": 0.0}, "intervention"),
        ({"part": "switches", "loss.z_loss": 1e-4}, "intervention"),
        ({"part": "text"}, "text"),
        ({"part": "images"}, "architecture"),
        ({"part": "ternary"}, "number format"),
        ({"part": "random-2", "optimizer.clip_norm": 0.0}, "random"),
    ],
)
def test_every_run_belongs_to_one_split(changes, name):
    assert split(**changes) == name
    assert name in splits.SPLITS


def test_a_run_of_no_split_is_refused():
    with pytest.raises(ValueError, match=r"every run must belong to a split, got widths \[80\.0\]"):
        split(size=80.0)
