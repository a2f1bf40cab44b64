import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.evaluation.savings import (
    saved_share,
    saved_steps,
    savings,
    savings_table,
    sweep_regret,
)
from foretune.analysis.stats.uncertainty import paired_difference, proportion

NEVER = math.nan


def stopped_runs(**columns):
    """Two sweeps of three runs: two unstable, three healthy, one neither; none is stopped."""
    frame = pd.DataFrame(
        {
            "group": [0, 0, 0, 1, 1, 1],
            "cluster": [0, 1, 2, 3, 4, 5],
            "total_steps": [100, 100, 100, 100, 100, 100],
            "stop_step": NEVER,
            "unstable": [False, False, True, False, False, True],
            "healthy": [True, True, False, True, False, False],
            "final": [2.0, 2.1, 3.0, 1.5, 1.9, math.inf],
        }
    )
    return frame.assign(**columns)


def test_savings_by_hand():
    found = savings(stopped_runs(stop_step=[NEVER, 50, 20, NEVER, NEVER, 60]))
    assert found.saved_unstable.value == pytest.approx((80 + 40) / 200)
    assert found.saved.value == pytest.approx((50 + 80 + 40) / 600)
    assert found.caught == proportion(2, 2)
    assert found.false_stops == proportion(1, 3)
    assert found.lead == pytest.approx(0.6)
    assert found.winners_stopped == proportion(0, 2)
    assert found.regret == 0.0
    assert found.saved.low <= found.saved.value <= found.saved.high


def test_a_stopped_winner_costs_its_lead_over_the_best_run_that_is_left():
    found = savings(stopped_runs(stop_step=[30, NEVER, NEVER, 30, NEVER, NEVER]))
    assert found.sweeps["regret"].tolist() == pytest.approx([0.1, 0.4])
    assert found.sweeps["winner_stopped"].tolist() == [True, True]
    assert found.regret == pytest.approx(0.4)
    assert found.winners_stopped == proportion(2, 2)
    assert found.false_stops == proportion(2, 3)
    assert found.saved_unstable.value == 0.0
    assert math.isnan(found.lead)


def test_a_winner_with_an_equal_left_is_not_lost():
    table = sweep_regret(stopped_runs(final=2.0, stop_step=[30, NEVER, 1, NEVER, NEVER, NEVER]))
    assert table["regret"].tolist() == [0.0, 0.0]
    assert table["stopped"].tolist() == [2, 0]


def test_a_sweep_of_which_nothing_is_left_has_lost_everything():
    found = savings(stopped_runs(stop_step=[1, 1, 1, NEVER, NEVER, NEVER]))
    assert found.sweeps.loc[0, "regret"] == found.regret == math.inf


def test_a_sweep_without_a_finite_loss_has_nothing_to_lose():
    found = savings(stopped_runs(final=[2.0, 2.1, 3.0, NEVER, math.inf, NEVER]))
    assert found.sweeps.index.tolist() == [0]
    assert (found.winners_stopped.n, found.regret) == (1, 0.0)


def test_a_stop_at_the_end_or_later_is_none():
    late = stopped_runs(stop_step=[100, 120, NEVER, 99, NEVER, 100])
    assert saved_steps(late).tolist() == [0, 0, 0, 1, 0, 0]
    found = savings(late)
    assert (found.false_stops.k, found.caught.k) == (1, 0)


def test_seeds_of_one_configuration_widen_the_false_stop_interval():
    runs = pd.concat([stopped_runs()] * 4)
    alone = savings(runs.assign(cluster=np.arange(24)))
    together = savings(runs)
    assert (together.false_stops.k, together.false_stops.n) == (0, 12)
    assert together.false_stops.high == proportion(0, 3).high > alone.false_stops.high


def test_a_sweep_without_unstable_runs_is_scored_all_the_same():
    found = savings(stopped_runs(unstable=False))
    assert math.isnan(found.saved_unstable.value)
    assert found.caught.n == 0


def test_the_table_has_a_row_per_predictor_and_pairs_can_be_compared():
    early = stopped_runs(stop_step=[NEVER, NEVER, 20, NEVER, NEVER, 20])
    late = stopped_runs(stop_step=[NEVER, NEVER, 70, NEVER, NEVER, 90])
    table = savings_table({"early": early, "late": late})
    assert table["saved_unstable"].to_dict() == {"early": 0.8, "late": pytest.approx(0.2)}
    assert table.loc["early", ["lead", "false_stops", "regret"]].tolist() == [0.8, 0.0, 0.0]
    doomed = early["unstable"]
    gain = paired_difference(saved_share(early[doomed]), saved_share(late[doomed]), [2, 5])
    assert (gain.value, gain.low) == (pytest.approx(0.6), pytest.approx(0.5))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"healthy": True}, "both unstable and healthy"),
        ({"total_steps": 0}, "every run must have made steps"),
        ({"stop_step": -1}, "none can stop before step 0"),
        ({"group": None}, "every run must have a sweep, got 6 without group"),
    ],
)
def test_contradictions_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        savings(stopped_runs(**columns))


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"got none of \['final'\]"):
        savings(stopped_runs().drop(columns="final"))
    assert len(sweep_regret(stopped_runs().rename(columns={"group": "search"}), by="search")) == 2
