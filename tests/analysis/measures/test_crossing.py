import math

import numpy as np
import pandas as pd
import pytest
from synthetic import GRID, Truth, start_sweep, write_run, write_sweep

from foretune import analysis
from foretune.analysis.measures.critical_lr import critical_table, window_check
from foretune.analysis.measures.crossing import above_best_lr, critical_lr, penalty_lr
from foretune.analysis.measures.signal import read_signal


def cells(values, **columns):
    lrs = [1e-3 * 10**i for i in range(len(values))]
    return pd.DataFrame({"lr": lrs, "value": values}).assign(**columns)


def test_a_power_law_is_interpolated_exactly():
    found = critical_lr(cells([1.0, 10.0, 1000.0]), threshold=100.0)
    assert found.status == "crossed"
    assert found.value == pytest.approx(10**-1.5)
    assert (found.low, found.high) == (pytest.approx(1e-2), pytest.approx(1e-1))


@pytest.mark.parametrize(
    ("values", "status", "low", "high"),
    [
        ([200.0, 3000.0], "below the grid", 0.0, 1e-3),
        ([1.0, 20.0], "above the grid", 1e-2, math.inf),
        ([200.0], "below the grid", 0.0, 1e-3),
        ([1.0], "above the grid", 1e-3, math.inf),
    ],
)
def test_outside_the_grid_there_is_a_bound(values, status, low, high):
    found = critical_lr(cells(values), threshold=100.0)
    assert math.isnan(found.value)
    assert (found.status, found.low, found.high) == (status, pytest.approx(low), high)


def test_nothing_known_is_cannot_tell():
    assert critical_lr(cells([]), threshold=100.0).status == "cannot tell"
    assert critical_lr(cells([math.nan, math.inf]), threshold=100.0).status == "cannot tell"


def test_a_dip_past_the_crossing_does_not_move_it():
    rising = critical_lr(cells([1.0, 10.0, 1000.0, 5000.0]), threshold=100.0)
    dipping = critical_lr(cells([1.0, 10.0, 1000.0, 800.0]), threshold=100.0)
    assert dipping.status == "crossed"
    assert dipping.value == pytest.approx(rising.value, rel=0.03)


def test_a_run_that_ended_early_past_the_line_gives_an_upper_bound():
    flags = [False, False, True]
    found = critical_lr(cells([1.0, 10.0, 1000.0], censored=flags), threshold=100.0)
    assert found.status == "crossed"
    assert found.high == found.value


def test_a_run_that_ended_early_below_the_line_hides_the_crossing():
    found = critical_lr(cells([1.0, 10.0, 20.0], censored=[False, False, True]), threshold=100.0)
    assert (found.status, found.low, found.high) == ("cannot tell", pytest.approx(1e-2), math.inf)


def bend(rates):
    """A signal that bends upward just below 100, as attention logits do."""
    past = np.log10(rates / 1e-2)
    return 10 ** (1.6 + 0.7 * past + 1.0 * np.log1p(np.exp(8 * past)) / 8 * 2)


def test_a_smooth_curve_crosses_a_bent_signal_nearer_to_the_truth():
    fine = np.geomspace(1e-3, 1e-1, 4001)
    truth = fine[np.argmax(bend(fine) >= 100)]
    for shift in (0.7, 0.85, 1.0, 1.3):
        rates = shift * np.array([1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
        frame = pd.DataFrame({"lr": rates, "value": bend(rates)})
        straight, smooth = (
            abs(math.log(critical_lr(frame, threshold=100.0, smooth=s).value / truth))
            for s in (False, True)
        )
        assert smooth < straight


def test_a_smooth_curve_keeps_bounds_and_exact_power_laws():
    found = critical_lr(cells([1.0, 10.0, 100.0, 1000.0]), threshold=30.0, smooth=True)
    assert found.value == pytest.approx(1e-3 * 10 ** math.log10(30))
    assert found.low < found.value < found.high
    early = cells([1.0, 10.0, 1000.0], censored=[False, False, True])
    found = critical_lr(early, threshold=100.0, smooth=True)
    assert found.high == found.value
    above = critical_lr(cells([1.0, 20.0]), threshold=100.0, smooth=True)
    assert (above.status, above.high) == ("above the grid", math.inf)


def test_zero_signals_are_below_any_line():
    assert critical_lr(cells([0.0, 10.0, 1000.0]), threshold=100.0).status == "crossed"


def test_bad_arguments_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="threshold must be positive and finite, got -1"):
        critical_lr(cells([1.0, 2.0]), threshold=-1)
    with pytest.raises(ValueError, match="add value"):
        critical_lr(pd.DataFrame({"lr": [1.0]}), threshold=100.0)
    with pytest.raises(ValueError, match="two increasing shares"):
        read_signal(pd.DataFrame(), pd.DataFrame(), window=(0.5, 0.5))


def test_excess_counts_from_the_optimum_up():
    curve = pd.DataFrame({"lr": [1e-3, 1e-2, 1e-1], "loss": [3.0, 2.0, 2.2]})
    assert above_best_lr(curve).value == pytest.approx(10**-1.5)
    rising = pd.DataFrame({"lr": [1e-3, 1e-2], "loss": [3.0, 2.0]})
    assert above_best_lr(rising).status == "above the grid"
    assert above_best_lr(rising[:1]).status == "cannot tell"


def test_penalty_counts_against_the_twin():
    bare = pd.DataFrame({"lr": [1e-3, 1e-2, 1e-1], "loss": [2.5, 2.0, 2.6]})
    twin = pd.DataFrame({"lr": [1e-3, 1e-2, 1e-1], "loss": [2.55, 2.0, 2.4]})
    assert penalty_lr(bare, twin).value == pytest.approx(10**-1.5)
    assert penalty_lr(bare, twin[:0]).status == "cannot tell"


def test_both_crossings_of_a_sweep_are_recovered(sweep):
    records = analysis.load(sweep)
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    bare = table[table["family"] == "model.qk_norm=false"]
    truth = np.array([Truth(width=int(size)).critical_lr for size in bare["size"]])
    # Straight lines in log-log between grid points of a bent curve cost a few percent.
    assert bare["critical_lr"].to_numpy() == pytest.approx(truth, rel=0.1)
    # The penalty is convex there, so its straight lines cross up to a quarter too early.
    assert bare["penalty_lr"].to_numpy() == pytest.approx(truth, rel=0.3)
    cured = table[table["family"] == "model.qk_norm=true"]
    assert set(cured["status"]) == {"above the grid"}
    assert set(cured["penalty_status"]) == {"cannot tell"}


def test_a_diverged_run_still_shows_where_the_line_is(tmp_path):
    root = start_sweep(tmp_path / "s")
    for lr in GRID[:3]:
        write_run(root, Truth(lr=lr))
    write_run(root, Truth(lr=0.1, outcome="diverged", last_step=20))
    records = analysis.load(root)
    cells = read_signal(records.trials, records.telemetry).set_index("lr")
    assert cells.loc[0.1, "censored"]
    assert cells.loc[0.1, "value"] > 100
    assert cells.loc[0.1, "loss"] == cells.loc[0.1, "loss_at_init"]
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    assert table["status"].tolist() == ["crossed"]


def test_a_stopped_run_has_no_final_loss(tmp_path):
    root = start_sweep(tmp_path / "s")
    write_run(root, Truth(lr=0.1, outcome="stopped", last_step=12))
    records = analysis.load(root)
    cell = read_signal(records.trials, records.telemetry).iloc[0]
    assert math.isnan(cell["loss"])
    assert cell["censored"]


def test_the_reading_point_is_checked(sweep):
    records = analysis.load(sweep)
    check = window_check(records.trials, records.telemetry, threshold=100.0)
    bare = check[(check["family"] == "model.qk_norm=false") & (check["size"] == 64)]
    late = bare[bare["start"] >= 0.25]["critical_lr"]
    assert late.max() == pytest.approx(late.min())
    early = bare[bare["start"] == 0.1]["critical_lr"].item()
    assert early > 1.5 * late.iloc[0]


def test_without_the_signal_nothing_is_told(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), logits=False)
    records = analysis.load(root)
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    assert set(table["status"]) == {"cannot tell"}
    assert "crossed" in set(table["excess_status"])
