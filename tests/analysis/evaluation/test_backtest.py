"""Replay is causal, folds keep configurations together, and scores are counted per split."""

import numpy as np
import pandas as pd
import pytest
from synthetic import write_sweep

from foretune.analysis import load
from foretune.analysis.evaluation.backtest import (
    clusters_of,
    context_of,
    fold_of,
    gain,
    histories,
    replay,
    score_table,
    steps_seen,
    with_sweep_loss,
)
from foretune.analysis.inside_run.contract import Forecast
from foretune.analysis.inside_run.predictors import PREDICTORS


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("backtest")
    return load(write_sweep(root / "s", widths=(16, 32), seeds=(0, 1)))


def longest(history, context):
    return Forecast(float(len(history)) / context["total_steps"], np.nan, "rows seen")


def test_a_predictor_sees_the_rows_before_its_step_and_no_others(records):
    for share, after, rows in ((0.10, False, 4), (0.10, True, 6), (0.001, False, 1)):
        found = replay(
            records.trials, records.telemetry, {"n": longest}, share=share, after_warmup=after
        )
        assert (found["n"] * 40).round().unique().tolist() == [rows]
    trial = {"steps": 300, "schedule.warmup_steps": 15}
    assert steps_seen(trial, 0.05, after_warmup=False) == 15
    assert steps_seen(trial, 0.05, after_warmup=True) == 30


def test_seeds_share_a_cluster_and_a_cluster_shares_a_fold(records):
    clusters = clusters_of(records.trials)
    assert clusters.nunique() == len(records.trials) / 2
    folds = fold_of(clusters)
    assert folds.groupby(clusters).nunique().eq(1).all()
    assert set(folds) == set(range(5))


def test_the_sweep_s_median_loss_is_of_the_same_step(records):
    trials = records.trials.assign(part="sweep")
    telemetry = with_sweep_loss(trials, records.telemetry)
    at = telemetry[(telemetry["step"] == 7) & telemetry["run_id"].str.startswith("w16-")]
    assert at["sweep_loss"].nunique() == 1
    assert at["sweep_loss"].iloc[0] == pytest.approx(at["loss"].median())


def test_scores_are_counted_per_split_and_gains_are_paired():
    rng = np.random.default_rng(0)
    runs = [f"r{i}" for i in range(80)]
    truth = pd.Series(rng.random(80) < 0.4, index=runs)
    forecasts = pd.DataFrame(
        {"knows": np.where(truth, 0.9, 0.1), "guesses": rng.random(80)}, index=runs
    )
    splits = pd.Series(["fit"] * 20 + ["text"] * 60, index=runs)
    clusters = pd.Series([f"c{i // 2}" for i in range(80)], index=runs)
    table = score_table(forecasts, truth, splits, clusters, draws=50).set_index(
        ["predictor", "split"]
    )
    assert table.loc[("knows", "text"), "auroc"] == 1
    assert table.loc[("knows", "text"), "n"] == 60
    assert table.loc[("knows", "all held out"), "n"] == 60
    assert table.loc[("knows", "fit"), "ece"] == pytest.approx(0.1)
    found = gain(forecasts, truth, clusters, ours="knows", theirs="guesses")
    assert found.low > 0.2
    assert found.value == pytest.approx(1 - table.loc[("guesses", "text"), "auroc"], abs=0.2)


def test_every_registered_predictor_answers_for_a_real_context(records):
    trial, history = next(histories(records.trials, records.telemetry))
    for name, predictor in PREDICTORS.items():
        answer = predictor(history, context_of(trial))
        assert answer.reason, name
