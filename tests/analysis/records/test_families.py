"""Which config fields belong to a ladder's dial, and which are factors beside it."""

from itertools import product

import pandas as pd
import pytest

from foretune.analysis.records.families import factors, families, held_constant, is_no_factor

LRS = (1e-3, 1e-2, 1e-1)


def trials(ladder, sizes, *, width=(16,), head_dim=(16,)):
    """Trials of one ladder at every size, LR, and width (depth ladder) or head dim."""
    rows = []
    for size, lr, w, k in product(sizes, LRS, width, head_dim):
        wide, deep = {"width": (size, 3), "depth": (w, size), "joint": (size, size // k)}[ladder]
        config = {"model.ladder": ladder, "model.width": wide, "model.depth": deep}
        config |= {"model.head_dim": k, "optimizer.lr": lr, "seed": 0}
        rows.append({"size": float(size), "n_params": 12.0 * wide**2 * deep, **config})
    return pd.DataFrame(rows)


WIDTH = trials("width", (16, 32, 64))
DEPTH = trials("depth", (1, 2, 4))
JOINT = trials("joint", (16, 32, 64))


@pytest.mark.parametrize("frame", [WIDTH, DEPTH, JOINT])
def test_what_the_dial_moves_is_no_factor(frame):
    assert factors(frame) == []


def test_several_ladders_are_told_apart_by_name_alone():
    # A width of 16 and a depth of 16: one size, two things.
    deep = trials("depth", (2, 16))
    assert factors(pd.concat([WIDTH, deep, JOINT], ignore_index=True)) == ["model.ladder"]


def test_every_width_of_a_ladder_of_depths_is_a_family():
    frame = trials("depth", (1, 2, 4), width=(16, 32))
    assert factors(frame) == ["model.width"]
    assert [f.label for f in families(frame)] == ["model.width=16", "model.width=32"]


def test_a_head_dim_brings_its_own_depths_on_the_joint_ladder():
    assert factors(trials("joint", (32, 64), head_dim=(16, 32))) == ["model.head_dim"]


def test_horizons_name_the_ladder_where_it_is_not_the_usual_one():
    assert held_constant(WIDTH) == {"head dim": 16, "depth": 3}
    assert held_constant(DEPTH) == {"head dim": 16, "ladder": "depth", "width": 16}
    assert held_constant(JOINT) == {"head dim": 16, "ladder": "joint"}


def test_records_from_before_there_were_ladders_are_as_they_were():
    frame = WIDTH.drop(columns="model.ladder")
    assert factors(frame) == []
    assert is_no_factor(frame, "model.width")
    assert held_constant(frame) == {"head dim": 16, "depth": 3}
