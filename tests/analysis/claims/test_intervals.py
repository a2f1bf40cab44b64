"""Intervals cover what they claim to, and say nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.claims.intervals import pooled, slope, unknown
from foretune.analysis.claims.words import claim, verdict
from foretune.analysis.measures.sensitivity import lr_sensitivity
from foretune.analysis.stats.verdict import Verdict

HOLDS, FAILS, CANNOT_TELL = Verdict


def line(rng, gradient, *, sizes=(4.0, 4.6, 5.2), seeds=3, sd=0.05):
    rows = [
        {"x": x, "y": gradient * x + rng.normal(0, sd), "seed": seed, "rung": str(x)}
        for x in sizes
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_pooled_means_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        groups = [middle + rng.normal(0, 0.05, 3) for middle in (0.1, 0.2, 0.6)]
        found = pooled(groups, sd=0.05)
        hits += found.low <= 0.3 <= found.high
    assert 0.84 <= hits / 300 <= 0.97


def test_one_group_is_the_interval_of_lr_sensitivity():
    losses = {0: (2.5, 2.0, 3.0), 1: (2.4, 2.1, 3.3), 2: (2.6, 2.0, 2.9)}
    frames = [
        pd.DataFrame({"lr": [1e-3, 1e-2, 1e-1], "loss": own, "loss_at_init": 6.0, "seed": seed})
        for seed, own in losses.items()
    ]
    whole = lr_sensitivity(pd.concat(frames))
    found = pooled([[lr_sensitivity(frame).value for frame in frames]], sd=0.03)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high))


def test_slopes_cover_the_truth_and_their_difference_is_one():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = slope(line(rng, 0.7), noise=0.05)
        hits += found.low <= 0.7 <= found.high
    assert 0.85 <= hits / 200 <= 1.0
    both = pd.concat([line(rng, 0.9).assign(left=True), line(rng, 0.2).assign(left=False)])
    found = slope(both, noise=0.05, within="left", against="left")
    assert found.value == pytest.approx(0.7, abs=0.1)
    assert found.sign == 1


def test_a_range_pulls_a_slope_like_a_number_inside_it():
    frame = line(np.random.default_rng(2), -0.5, sd=0.01)
    bounded = frame.assign(low=frame["y"], high=frame["y"])
    last = bounded["x"] == 5.2
    bounded.loc[last, ["low", "high"]] = [-np.inf, -2.3]
    found = slope(bounded, noise=0.05)
    assert found.value == pytest.approx(-0.5, abs=0.1)


def test_nothing_is_unknown_and_never_a_number():
    assert not pooled([[], [np.nan]], sd=1.0).known
    assert not slope(line(np.random.default_rng(0), 1.0, sizes=(4.0,)), noise=0.1).known
    unclear = claim("n", "it falls", "the slope", unknown("one size was run"), "lower")
    assert (unclear.verdict, unclear.numbers) == (CANNOT_TELL, {})
    assert "not known: one size was run" in unclear.sentence


def test_verdicts_are_of_intervals():
    def between(low, high):
        return pooled([[0.0]], sd=1.0).__class__((low + high) / 2, low, high)

    assert verdict(between(-2, -1), "lower") is HOLDS
    assert verdict(between(1, 2), "lower") is FAILS
    assert verdict(between(-1, 1), "lower") is CANNOT_TELL
    assert verdict(between(-0.01, 0.02), "same", 0.05) is HOLDS
    assert verdict(between(-0.2, -0.1), "same", 0.05) is FAILS
    assert verdict(between(0.1, 0.2), "same", 0.05) is FAILS
    assert verdict(between(0.1, 0.2), "not lower", 0.05) is HOLDS
    assert verdict(between(-0.2, -0.1), "not lower", 0.05) is FAILS
    assert verdict(between(-0.2, 0.1), "same", 0.05) is CANNOT_TELL
