import math

import numpy as np
import pandas as pd
import pytest
from synthetic import Truth, start_sweep, write_run, write_sweep

from foretune import analysis
from foretune.analysis.measures.sensitivity import lr_sensitivity, sensitivity_table


def grid(losses, **columns):
    frame = pd.DataFrame({"lr": [1e-3 * 3**i for i in range(len(losses))], "loss": losses})
    return frame.assign(loss_at_init=6.0, **columns)


def test_the_formula_by_hand():
    result = lr_sensitivity(grid([2.5, 2.0, 3.0, 9.0]))
    # min(l, 6) - 2: 0.5, 0, 1, 4
    assert result.value == pytest.approx(5.5 / 4)
    assert (result.best_lr, result.best_loss) == (3e-3, 2.0)
    assert (result.n_lr, result.n_seeds) == (4, 1)
    assert result.low < result.value < result.high
    assert "one seed" in result.status


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_the_loss_at_init(lost):
    assert lr_sensitivity(grid([2.0, lost])).value == pytest.approx(2.0)


def test_a_diverged_run_counts_as_the_loss_at_init_whatever_it_last_measured():
    assert lr_sensitivity(grid([2.0, 2.1], diverged=[False, True])).value == pytest.approx(2.0)


def test_a_censored_trial_bounds_the_interval():
    free = lr_sensitivity(grid([2.0, 2.4, 3.0]))
    bound = lr_sensitivity(grid([2.0, 2.4, 3.0], censored=[False, False, True]))
    assert bound.value == free.value
    assert free.low - bound.low == pytest.approx(1.0 / 3)
    assert bound.high - free.high == pytest.approx((6.0 - 3.0) / 3)
    assert "1 stopped early" in bound.status


def test_two_seeds_use_their_own_spread():
    frame = pd.concat([grid([2.0, 2.3], seed=0), grid([2.1, 2.9], seed=1)])
    result = lr_sensitivity(frame)
    assert result.value == pytest.approx((0.15 + 0.40) / 2)
    assert result.n_seeds == 2
    assert result.high - result.low > lr_sensitivity(grid([2.0, 2.3])).high - 0.15
    assert "2 seeds" in result.status


def test_a_seed_without_the_whole_grid_is_left_out():
    frame = pd.concat([grid([2.0, 2.3], seed=0), grid([2.0], seed=1)])
    result = lr_sensitivity(frame)
    assert (result.value, result.n_seeds) == (pytest.approx(0.15), 1)


def test_a_random_search_is_averaged_over_its_seeds():
    frame = pd.DataFrame(
        {"lr": [1e-3, 2e-3, 5e-3], "loss": [2.0, 2.2, 2.4], "loss_at_init": 6.0, "seed": [0, 1, 2]}
    )
    result = lr_sensitivity(frame)
    assert (result.value, result.n_lr) == (pytest.approx(0.2), 3)
    assert "no seed has the whole grid" in result.status


def test_too_little_is_cannot_tell():
    assert lr_sensitivity(grid([2.0])).status.startswith("cannot tell: one learning rate")
    empty = lr_sensitivity(grid([]))
    assert empty.status.startswith("cannot tell")
    assert math.isnan(empty.value)
    lost = lr_sensitivity(grid([math.nan, math.nan]).assign(loss_at_init=math.nan))
    assert lost.status.startswith("cannot tell")


def test_bad_frames_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="add loss_at_init"):
        lr_sensitivity(pd.DataFrame({"lr": [1.0], "loss": [2.0]}))
    with pytest.raises(ValueError, match=r"lr must be positive and finite, got -0\.001"):
        lr_sensitivity(grid([2.0, 2.1]).assign(lr=[-1e-3, 1e-3]))
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 90"):
        lr_sensitivity(grid([2.0, 2.1]), level=90)


@pytest.mark.slow
def test_seed_intervals_cover():
    rng = np.random.default_rng(0)
    truth = lr_sensitivity(grid([2.0, 2.2, 2.8])).value
    hits = 0
    for _ in range(300):
        seeds = [
            grid([2.0, 2.2 + rng.normal(0, 0.04), 2.8 + rng.normal(0, 0.08)], seed=seed)
            for seed in range(3)
        ]
        result = lr_sensitivity(pd.concat(seeds), level=0.9)
        hits += result.low <= truth <= result.high
    assert 0.80 <= hits / 300 <= 0.98


def test_the_table_shows_that_the_cure_lowers_sensitivity(sweep):
    table = sensitivity_table(analysis.load(sweep).trials)
    assert list(table["model.qk_norm"]) == [False] * 3 + [True] * 3
    bare, cured = table[~table["model.qk_norm"]], table[table["model.qk_norm"]]
    assert (bare["sensitivity"].to_numpy() > cured["sensitivity"].to_numpy()).all()
    assert bare["sensitivity"].is_monotonic_increasing
    assert (table["high_side"] >= 0).all()


def test_high_side_ignores_undertraining(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-4, 1e-3, 1e-2, 3e-2), qk_norms=(True,))
    row = sensitivity_table(analysis.load(root).trials).iloc[0]
    assert row["best_lr"] == 1e-2
    assert row["high_side"] < 0.02 < row["sensitivity"]


def test_unfinished_and_failed_trials_say_nothing(tmp_path):
    root = start_sweep(tmp_path / "s")
    for lr in (3e-3, 1e-2, 3e-2):
        write_run(root, Truth(lr=lr))
    before = sensitivity_table(analysis.load(root).trials)["sensitivity"][0]
    write_run(root, Truth(lr=1e-1, outcome="failed", last_step=3))
    write_run(root, Truth(lr=3e-1, outcome=None, last_step=3))
    assert sensitivity_table(analysis.load(root).trials)["sensitivity"][0] == before
    write_run(root, Truth(lr=1.0, outcome="diverged", last_step=3))
    assert sensitivity_table(analysis.load(root).trials)["sensitivity"][0] > before + 0.5


def test_an_empty_table_has_its_columns(tmp_path):
    trials = analysis.load(start_sweep(tmp_path / "s")).trials
    assert {"sensitivity", "high_side", "family"} <= set(sensitivity_table(trials).columns)
