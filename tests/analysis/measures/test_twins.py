"""Twins: runs that a fix alone tells apart."""

import pandas as pd
import pytest

from foretune.analysis.measures.twins import twins_of


def trials(**columns):
    count = len(next(iter(columns.values())))
    frame = {
        "run_id": [f"r{i}" for i in range(count)],
        "seed": 0,
        "size": 16,
        "reference_loss": 5.0,
        "model.qk_norm": False,
        "optimizer.lr": 0.03,
        **columns,
    }
    return pd.DataFrame(frame)


def test_runs_that_nothing_but_the_rate_tells_apart_are_twins():
    found = twins_of(
        trials(**{"optimizer.lr": [0.1, 0.03, 0.01], "final_val_loss": [6.0, 3.0, 2.0]}),
        "a third of the learning rate",
    )
    assert found["run_id"].tolist() == ["r0", "r1"]
    assert found["benefit"].tolist() == [2.0, 1.0]  # The first is capped at the reference.


def test_runs_that_nothing_but_the_norm_tells_apart_are_twins():
    found = twins_of(
        trials(**{"model.qk_norm": [False, True], "final_val_loss": [4.0, 3.0]}), "qk-layernorm"
    )
    assert found[["run_id", "benefit"]].values.tolist() == [["r0", 1.0]]


@pytest.mark.parametrize("other", ["seed", "size"])
def test_runs_that_something_else_tells_apart_are_none(other):
    columns = {"optimizer.lr": [0.1, 0.03], "final_val_loss": [4.0, 3.0], other: [1, 2]}
    assert twins_of(trials(**columns), "a third of the learning rate").empty


def test_one_run_has_no_twin():
    assert twins_of(trials(final_val_loss=[4.0]), "a third of the learning rate").empty
