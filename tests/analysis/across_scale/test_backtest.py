import math

import numpy as np
import pandas as pd
import pytest
from synthetic import critical_lr, write_sweep

from foretune import analysis
from foretune.analysis.across_scale.backtest import COLUMNS, scale_backtest
from foretune.analysis.across_scale.backtest_summary import summarise, verdicts
from foretune.analysis.measures.crossing import excess_crossing

WIDTHS = (16, 32, 64, 128)
GRID = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("scale") / "sweep"
    write_sweep(root, widths=WIDTHS, lrs=GRID, seeds=(0, 1), qk_norms=(False,), noise=0.02)
    return analysis.load(root)


@pytest.fixture(scope="module")
def table(records):
    forms = ("per-lr-linear", "per-lr-quadratic", "sliding")
    return scale_backtest(records.trials, records.telemetry, forms=forms)


def rows(table, quantity, method, **where):
    chosen = table[(table["quantity"] == quantity) & (table["method"] == method)]
    for name, value in where.items():
        chosen = chosen[np.isclose(chosen[name].astype(float), value)]
    return chosen


def test_every_later_size_is_predicted_from_every_set_of_smaller_ones(table):
    assert list(table) == [*COLUMNS]
    found = rows(table, "critical LR, signal", "law")
    assert found[["n_sizes", "factor"]].round().to_numpy().tolist() == [[2, 4], [2, 16], [3, 4]]


@pytest.mark.parametrize("method", ["law", "sliding surface"])
def test_the_planted_critical_rate_is_foretold_with_its_interval(table, method):
    found = rows(table, "critical LR, signal", method)
    truth = np.array([critical_lr(n) for n in found["n_params"]])
    assert found["measured"].to_numpy(float) == pytest.approx(truth, rel=0.15)
    assert found["error"].abs().max() < 0.1
    assert found["inside"].all()


def test_the_baseline_that_learns_nothing_misses_by_the_slope(table):
    found = rows(table, "critical LR, signal", "same as before")
    slope = found["error"].astype(float) / np.log10(found["factor"])
    assert slope.to_numpy() == pytest.approx(0.5, abs=0.1)
    assert found["interval_score"].isna().all()


def test_a_sliding_world_is_scored_better_than_parabolas(table):
    scores = summarise(table).set_index(["quantity", "method", "factor"])["crps"]
    signal = scores["signal at a learning rate"]
    assert signal["sliding", 4.0] < 0.9 * signal["per-lr-quadratic", 4.0]
    assert signal["sliding", 16.0] < 0.5 * signal["per-lr-linear", 16.0]


def test_cells_are_called_and_the_edge_is_told_apart(table):
    found = verdicts(table)
    found = found[found["quantity"] == "unstable, loss 0.40"]
    found = found.set_index(["method", "factor", "where"])
    law = found.loc[("law", 4.0, "all")]
    assert law["n"] == len(GRID) * 2
    assert law["false_alarms"] == law["misses"] == 0
    edge, far = (found.loc[("law", 4.0, where), "n"] for where in ("edge", "far"))
    assert edge + far == law["n"]
    assert found.loc[("law", 4.0, "far"), "cannot_tell"] == 0


def test_without_a_probability_the_verdict_is_cannot_tell(table):
    blind = table[table["truth"].notna()].assign(probability=math.nan)
    found = verdicts(blind)
    assert (found["cannot_tell"] == 1).all()
    assert found["precision"].isna().all()


def test_several_families_are_refused_in_a_sentence(tmp_path):
    mixed = analysis.load(write_sweep(tmp_path / "s", widths=(16, 32), lrs=GRID[:2]))
    with pytest.raises(
        ValueError, match=r"one family, got model.qk_norm=false; model.qk_norm=true"
    ):
        scale_backtest(mixed.trials, mixed.telemetry)
    with pytest.raises(ValueError, match="one family, got none; select one"):
        scale_backtest(mixed.trials[:0], mixed.telemetry)


def curve(rates, middle=1e-2, seeds=1):
    """Excess 0.6 x^2 / (0.3 + x^2) above the optimum, x in decades."""
    x = np.log10(rates / middle)
    share = np.where(x > 0, 0.6 * x**2 / (0.3 + x**2), 0.1 * x**2)
    return pd.DataFrame({"lr": rates, "loss": 2 + 1.1 * share, "reference_loss": 3.1})


@pytest.mark.parametrize("level", [0.1, 0.4])
def test_the_excess_crossing_is_found_between_grid_points(level):
    grid = np.array([1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1])
    found = excess_crossing(curve(grid), level)
    truth = 1e-2 * 10 ** math.sqrt(0.3 * level / (0.6 - level))
    assert found.status == "crossed"
    assert found.low < found.value < found.high
    assert math.log10(found.value / truth) == pytest.approx(0, abs=0.03)


def test_an_excess_that_the_grid_does_not_reach_is_bounded():
    grid = np.array([1e-3, 3e-3, 1e-2, 1.5e-2])
    above = excess_crossing(curve(grid), 0.4)
    assert (above.status, above.low, above.high) == ("above the grid", 1.5e-2, math.inf)
    assert excess_crossing(curve(grid[:3]), 0.4).status == "above the grid"
    assert excess_crossing(curve(grid)[:1], 0.4).status == "cannot tell"
    assert excess_crossing(curve(grid).assign(loss=math.nan), 0.4).status == "cannot tell"


def test_a_diverged_run_counts_as_having_lost_everything():
    frame = curve(np.array([1e-3, 1e-2, 1e-1]))
    frame.loc[2, "loss"] = 6.3
    assert excess_crossing(frame, 0.4).status == "crossed"
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1"):
        excess_crossing(frame, 1.0)
