"""What the usual early stopping would have done, by hand, and never with a look ahead."""

import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.evaluation.rival_stoppers import (
    REPLAYS,
    curve_stopping,
    median_of_others,
    median_stopping,
    successive_halving,
)
from foretune.analysis.evaluation.savings import savings
from foretune.analysis.stats.power_law import extrapolate
from foretune.analysis.stats.uncertainty import proportion

NEVER = math.nan


def recorded(table, *, every=10, total=None):
    """Curves and runs of one sweep: a list of losses per run, read at 0, every, 2 * every, ..."""
    rows = [
        (run_id, every * i, loss)
        for run_id, losses in table.items()
        for i, loss in enumerate(losses)
    ]
    curves = pd.DataFrame(rows, columns=["run_id", "step", "val_loss"])
    steps = [every * (len(losses) - 1) for losses in table.values()]
    runs = pd.DataFrame({"run_id": list(table), "group": 0, "total_steps": total or steps})
    return curves, runs


HALVED = {
    # Losses at steps 0, 10, ..., 90; rungs of factor 3 at 10, 30.
    "a": [6, 1.0, 9, 9.0, 9, 9, 9, 9, 9, 9],
    "b": [6, 1.1, 9, 1.0, 9, 9, 9, 9, 9, 9],
    "c": [6, 1.2, 9, 2.0, 9, 9, 9, 9, 9, 9],
    "d": [6, 1.3, 0, 0.0, 0, 0, 0, 0, 0, 0],
    "e": [6, 1.4, 0, 0.0, 0, 0, 0, 0, 0, 0],
    "f": [6, 1.5, 0, 0.0, 0, 0, 0, 0, 0, 0],
    "g": [6, 1.6, 0, 0.0, 0, 0, 0, 0, 0, 0],
    "h": [6, 1.7, 0, 0.0, 0, 0, 0, 0, 0, 0],
    "i": [6, 1.8, 0, 0.0, 0, 0, 0, 0, 0, 0],
}


def test_halving_by_hand_kills_late_bloomers():
    stops = successive_halving(*recorded(HALVED), factor=3, grace=1 / 9)
    assert stops.to_dict() == pytest.approx(
        {"a": 30, "b": NEVER, "c": 30} | dict.fromkeys("defghi", 10), nan_ok=True
    )
    # Rungs at steps 10 and 40: two of nine, then one.
    stops = successive_halving(*recorded(HALVED), factor=4, grace=1 / 9)
    assert stops.to_dict() == pytest.approx(
        {"a": NEVER, "b": 40} | dict.fromkeys("cdefghi", 10), nan_ok=True
    )


def test_the_winner_that_halving_kills_is_regretted():
    curves, runs = recorded(HALVED)
    stops = successive_halving(curves, runs, grace=1 / 9)
    runs = runs.assign(
        stop_step=stops.to_numpy(),
        unstable=False,
        healthy=True,
        cluster=runs["run_id"],
        final=[losses[-1] for losses in HALVED.values()],
    )
    found = savings(runs)
    assert found.winners_stopped == proportion(1, 1)
    assert found.regret == 9.0
    assert found.saved.value == pytest.approx((2 * 60 + 6 * 80) / 810)


def test_a_run_that_ended_by_itself_counts_as_the_worst_and_is_not_stopped():
    table = {"a": [6, 3, 3, 3], "b": [6, 2, 2, 2], "c": [6, 1], "d": [6, 4, 4, 4]}
    stops = successive_halving(*recorded(table, total=[30, 30, 12, 30]), factor=2, grace=0.5)
    assert stops.to_dict() == pytest.approx(
        {"a": NEVER, "b": NEVER, "c": NEVER, "d": 15}, nan_ok=True
    )


def test_sweeps_do_not_compete():
    curves, runs = recorded(HALVED)
    alone = successive_halving(curves, runs.assign(group=range(9)), grace=1 / 9)
    assert alone.isna().all()
    for replay in REPLAYS.values():
        half = replay(curves, runs.assign(group=[0] * 5 + [1] * 4))
        first = replay(curves, runs.head(5))
        assert half.head(5).equals(first)


def test_the_median_rule_by_hand():
    table = {
        "good": [6, 2, 1, 1, 1],
        "fair": [6, 3, 2, 2, 2],
        "poor": [6, 5, 5, 5, 5],
        "late": [6, 6, 6, 0, 0],
    }
    stops = median_stopping(*recorded(table), grace=0.5, others=3)
    # Averages at step 20: 3, 11/3, 16/3, 6. Medians of the others: for poor 11/3, for late 11/3.
    expected = {"good": NEVER, "fair": NEVER, "poor": 20, "late": 20}
    assert stops.to_dict() == pytest.approx(expected, nan_ok=True)
    assert median_stopping(*recorded(table), grace=0.5, others=4).isna().all()
    # At step 10 already: best 5 against a median of 4.5, 6 against 4.5.
    assert median_stopping(*recorded(table), grace=0.25)[["poor", "late"]].tolist() == [10, 10]


def test_the_median_of_others_is_what_it_says():
    rng = np.random.default_rng(0)
    for n in range(2, 9):
        values = rng.integers(0, 5, n).astype(float)
        expected = [np.median(np.delete(values, i)) for i in range(n)]
        assert median_of_others(values).tolist() == expected


def power_law(a, b, c, n=31):
    return list(a + b * (10.0 * np.arange(n) + 1) ** -c)


def test_a_curve_is_extrapolated_to_its_end():
    steps, end = 10.0 * np.arange(12), 300.0
    losses = np.array(power_law(2.0, 4.0, 0.5, 12))
    truth = 2.0 + 4.0 * (end + 1) ** -0.5
    found = extrapolate(steps, losses, end)
    assert found is not None
    assert found.mean == pytest.approx(truth, abs=0.05)
    assert found.above(truth - 0.1) > 0.95
    assert found.above(truth + 0.1) < 0.05
    assert extrapolate(steps[:3], losses[:3], end) is None


def test_extrapolated_chances_are_roughly_calibrated():
    rng, steps, below = np.random.default_rng(1), 10.0 * np.arange(10), []
    for _ in range(300):
        a, b, c = rng.uniform(1, 3), rng.uniform(1, 5), rng.uniform(0.2, 1.5)
        losses = a + b * (steps + 1) ** -c + rng.normal(0, 0.05, 10)
        end = a + b * 301.0**-c + rng.normal(0, 0.05)
        below.append(extrapolate(steps, losses, 300.0).above(end))
    assert 0.75 < np.mean((np.array(below) > 0.05) & (np.array(below) < 0.95)) <= 0.99


def test_learning_curves_stop_what_cannot_catch_up():
    table = {
        "good": power_law(1.0, 5.0, 0.5),
        "bad": power_law(3.0, 3.0, 0.5),
        "flat": [4.0] * 31,
        "slow": power_law(0.0, 6.0, 0.2),
    }
    stops = curve_stopping(*recorded(table))
    assert math.isnan(stops["good"])
    assert stops["bad"] < 200
    assert stops["flat"] == 30
    # It is behind for long, and ends at 1.9 against 1.3.
    assert stops["slow"] > stops["flat"]


def test_noise_alone_stops_few_runs_and_never_all():
    rng = np.random.default_rng(4)
    table = {
        f"r{i}": np.array(power_law(1.0, 5.0, 0.5)) + rng.normal(0, 0.05, 31) for i in range(8)
    }
    stops = curve_stopping(*recorded(table))
    assert stops.isna().sum() >= 4
    harsh = curve_stopping(*recorded(table), confidence=0.01)
    assert harsh.isna().sum() == 1


@pytest.mark.parametrize("name", REPLAYS)
def test_a_run_that_has_ended_is_not_stopped(name):
    table = {f"r{i}": power_law(1.0 + 0.1 * i, 5.0, 0.5) for i in range(6)}
    table["lost"] = [9.0] * 4
    curves, runs = recorded(table)
    short = REPLAYS[name](curves, runs.assign(total_steps=[300] * 6 + [30]))
    assert math.isnan(short["lost"])
    long = REPLAYS[name](curves, runs.assign(total_steps=300))
    assert long["lost"] == 30


def test_rungs_are_whole_steps_whatever_the_rounding():
    stops = successive_halving(*recorded({f"r{i}": [6.0 + i] * 101 for i in range(9)}, every=1))
    assert sorted(set(stops.dropna())) == [10, 30]


@pytest.mark.parametrize("name", REPLAYS)
def test_replays_never_look_ahead(name):
    """Whatever comes after a stop changes nothing before it."""
    rng = np.random.default_rng(3)
    table = {f"r{i}": list(np.cumsum(rng.normal(-0.1, 0.5, 21)) + 6) for i in range(12)}
    curves, runs = recorded(table)
    stops = REPLAYS[name](curves, runs)
    assert stops.notna().any()
    for cut in (40, 100, 160):
        changed = curves["val_loss"].where(curves["step"] <= cut, rng.normal(size=len(curves)))
        again = REPLAYS[name](curves.assign(val_loss=changed), runs)
        assert again[stops <= cut].equals(stops[stops <= cut])
        assert set(again.index[again <= cut]) == set(stops.index[stops <= cut])


@pytest.mark.parametrize("name", REPLAYS)
def test_steps_without_a_reading_and_other_losses_are_understood(name):
    curves, runs = recorded(HALVED)
    between = curves.assign(step=curves["step"] + 5, val_loss=NEVER)
    both = pd.concat([curves, between]).rename(columns={"val_loss": "smooth"})
    assert REPLAYS[name](both, runs, loss="smooth").equals(REPLAYS[name](curves, runs))


def test_impossible_replays_are_refused():
    curves, runs = recorded(HALVED)
    with pytest.raises(ValueError, match="factor must be a whole number from 2 on, got 1"):
        successive_halving(curves, runs, factor=1)
    with pytest.raises(ValueError, match="grace must lie between 0 and 1, got 10"):
        median_stopping(curves, runs, grace=10)
    with pytest.raises(ValueError, match="others must be 1 or more, got 0"):
        median_stopping(curves, runs, others=0)
    with pytest.raises(ValueError, match="every look must lie between 0 and 1, got 1"):
        curve_stopping(curves, runs, looks=[0.5, 1.0])
    with pytest.raises(ValueError, match="got none for 1, such as z"):
        successive_halving(curves, pd.concat([runs, runs.head(1).assign(run_id="z")]))
    with pytest.raises(ValueError, match="must come once"):
        successive_halving(pd.concat([curves, curves]), runs)
    with pytest.raises(ValueError, match=r"curves must have the columns .* got no \['loss'\]"):
        successive_halving(curves, runs, loss="loss")
    with pytest.raises(ValueError, match="got 9 without group"):
        successive_halving(curves, runs.assign(group=None))
