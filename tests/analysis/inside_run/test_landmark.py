"""The fitted forecast: it recovers a planted instability, is causal, and says when it can't."""

import math

import numpy as np
import pandas as pd
import pytest
from predictor_cases import CONTEXT, broken_contexts, broken_histories, healthy
from synthetic import write_sweep

from foretune.analysis import load
from foretune.analysis.evaluation.backtest import (
    clusters_of,
    context_of,
    histories,
    replay,
    running_scores,
)
from foretune.analysis.evaluation.fitting import fit_forecast
from foretune.analysis.inside_run.landmark import SHIPPED, read_landmarks
from foretune.analysis.inside_run.stopping import StopRule
from foretune.analysis.measures.labels import label_runs
from foretune.analysis.stats.conformal import first_crossing
from foretune.analysis.stats.scoring import auroc

LRS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
SWITCHES = {
    "optimizer.weight_decay": 1e-4,
    "optimizer.clip_norm": 1.0,
    "optimizer.epsilon": 1e-8,
    "loss.z_loss": 0.0,
}


def records(root, widths, **options):
    found = load(write_sweep(root, widths=widths, lrs=LRS, noise=0.05, **options))
    return found.trials.assign(part="core", **SWITCHES), found.telemetry


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return records(tmp_path_factory.mktemp("small"), (16, 32, 48, 64), seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return records(tmp_path_factory.mktemp("large"), (128,), seeds=(3,), rng=1)


@pytest.fixture(scope="module")
def model(small):
    return fit_forecast(*small)


def test_larger_models_are_told_apart_from_a_tenth_of_their_steps(model, large):
    labels = label_runs(*large)["unstable"]
    assert 0 < labels.sum() < len(labels)
    found = replay(*large, {"ours": model}, share=0.10)["ours"]
    assert auroc(found.to_numpy(), labels.loc[found.index].to_numpy()) == 1.0


def test_what_it_was_fitted_on_is_its_horizon(model, small):
    trials, telemetry = small
    labels = label_runs(trials, telemetry)
    assert model.about["runs"] == len(trials)
    assert model.about["unstable"] == labels["unstable"].sum()
    assert model.about["horizon"]["n_params"] == [12 * 16**2 * 3, 12 * 64**2 * 3 + 96]
    healthy = clusters_of(trials).loc[labels.index[labels["healthy"]]].nunique()
    assert model.about["healthy_configurations"] == healthy
    assert set(model.about["thresholds"]) == ({"0.05", "0.1"} if healthy >= 19 else {"0.1"})


def test_a_stored_model_forecasts_the_same(model, large, tmp_path):
    (tmp_path / "model.json").write_text(model.to_json())
    again = read_landmarks(tmp_path / "model.json")
    both = replay(*large, {"ours": model, "again": again}, share=0.10)
    np.testing.assert_allclose(both["ours"], both["again"], atol=1e-5)
    assert again.about["thresholds"] == pytest.approx(model.about["thresholds"])
    assert again.about["horizon"] == model.about["horizon"]
    with pytest.raises(ValueError, match=r"model must be there, got no .*absent\.json"):
        read_landmarks(tmp_path / "absent.json")


def test_the_forecast_has_step_and_reason(model, large):
    trial, history = next(
        (t, h) for t, h in histories(*large) if t["optimizer.lr"] == 1.0 and not t["model.qk_norm"]
    )
    forecast = model(history.head(8), context_of(trial))
    assert forecast.status == "ok"
    assert forecast.probability > 0.9
    assert 0 <= forecast.step <= trial["steps"]
    assert forecast.reason.startswith("largest attention logit ")


def test_too_early_or_without_logits_it_cannot_tell(model, large):
    trial, history = next(histories(*large))
    context = context_of(trial)
    assert "first look is at 3%" in model(history.head(1), {**context, "total_steps": 1000}).status
    bare = history.drop(columns=["max_attention_logit"])
    assert "no attention logits" in model(bare, context).status
    assert math.isnan(model(bare, context).probability)


def check(forecast):
    cannot = forecast.status.startswith("cannot tell: ")
    assert math.isnan(forecast.probability) == cannot
    assert cannot or (forecast.status == "ok" and 0 <= forecast.probability <= 1)
    assert forecast.reason


@pytest.mark.parametrize("name", broken_histories())
def test_every_history_gets_an_answer(model, name):
    check(model(broken_histories()[name], CONTEXT))


@pytest.mark.parametrize("name", broken_contexts())
def test_every_context_gets_an_answer(model, name):
    check(model(healthy(), broken_contexts()[name]))


def test_the_stop_rule_sees_live_what_the_backtest_sees(model, large):
    """And stops where the running score first passes the threshold, not at another step."""
    stopped = 0
    for trial, history in histories(*large):
        context = context_of(trial)
        scores = running_scores(model, history, context)
        rule, at = StopRule(context, false_stops=0.1, model=model), math.nan
        for row in history.to_dict("records"):
            step = int(row.pop("step"))
            if rule.observe(step, {k: v for k, v in row.items() if isinstance(v, float)}):
                at = step
                break
        expected = first_crossing(scores.index.to_numpy(), scores.to_numpy(), rule.threshold)
        assert at == expected or (math.isnan(at) and math.isnan(expected))
        stopped += not math.isnan(at)
    assert stopped > 0


def test_a_rate_that_was_not_calibrated_is_one_sentence(model):
    with pytest.raises(ValueError, match=r"^false_stops must be one of .*, got 0\.03"):
        StopRule({"total_steps": 100}, false_stops=0.03, model=model)


def test_the_shipped_model_is_there_and_stops_at_five_per_cent():
    assert SHIPPED.is_file()
    shipped = read_landmarks()
    rule = StopRule({"total_steps": 100})
    assert 0 < rule.threshold < 1
    assert shipped.about["unstable"] > 30
    assert "bank_sha256" in shipped.about


def test_no_row_beyond_the_prefix_matters(model, large):
    """What is replayed at a tenth of the steps is the same whatever comes after."""
    trials, telemetry = large
    later = telemetry["step"] >= 4
    other = telemetry.assign(
        **{name: telemetry[name].where(~later, 1e6) for name in ("loss", "max_attention_logit")}
    )
    assert not other.equals(telemetry)
    seen, changed = (replay(trials, t, {"ours": model}, share=0.1) for t in (telemetry, other))
    pd.testing.assert_frame_equal(seen, changed)
    later_look = replay(trials, other, {"ours": model}, share=0.5)
    assert not later_look.equals(replay(trials, telemetry, {"ours": model}, share=0.5))
