import math

import numpy as np
import pandas as pd
import predictor_cases
import pytest
from predictor_cases import CONTEXT, STEPS, healthy

from foretune.analysis.inside_run.baselines import BASELINES, SkipStep, SpikeScore
from foretune.analysis.inside_run.configuration import Configuration
from foretune.analysis.inside_run.loss_baselines import power_law_at

STRENGTHS = (0.0, 1.0, 2.0, 3.0)
HISTORIES = predictor_cases.broken_histories()
CONTEXTS = predictor_cases.broken_contexts()


def swept_contexts(count=400, seed=0):
    """Contexts of a sweep, unstable by learning rate and size, and by qk-layernorm."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "lr": 10 ** rng.uniform(-3.5, 0, count),
            "n_params": 10 ** rng.uniform(3.5, 6, count),
            "total_steps": rng.choice([150, 300, 1000], count),
            "loss_at_init": rng.normal(6, 1, count),
            "seed": rng.integers(0, 3, count),
            "model.qk_norm": rng.random(count) < 0.5,
            "model.kind": rng.choice(["transformer", "vit", "other"], count),
            "data.name": "stdlib",
        }
    )
    frame["steps"] = frame["total_steps"]
    frame["schedule.decay_steps"] = frame["total_steps"]
    odds = 4 * (np.log10(frame["lr"]) + 1.5 + 0.5 * (np.log10(frame["n_params"]) - 5))
    odds -= 6 * frame["model.qk_norm"]
    return frame, (rng.random(count) < 1 / (1 + np.exp(-odds))).to_numpy(float)


PREDICTORS = {**BASELINES, "configuration": Configuration.fit(*swept_contexts())}


@pytest.fixture(params=PREDICTORS, ids=PREDICTORS.keys())
def name(request):
    return request.param


def check(forecast, case):
    assert isinstance(forecast.reason, str), case
    assert forecast.reason, case
    if forecast.status == "ok":
        assert 0 <= forecast.probability <= 1, case
        assert type(forecast.probability) is float, case
    else:
        assert forecast.status.startswith("cannot tell: "), case
        assert math.isnan(forecast.probability), case
    assert math.isnan(forecast.step), case


def test_every_history_gets_an_answer(name):
    for case, history in HISTORIES.items():
        check(PREDICTORS[name](history, CONTEXT), case)


def test_every_context_gets_an_answer(name):
    for case, context in CONTEXTS.items():
        check(PREDICTORS[name](healthy(), context), case)


def test_a_whole_history_gets_a_probability(name):
    assert PREDICTORS[name](healthy(), CONTEXT).status == "ok"


@pytest.mark.parametrize("name", sorted(PREDICTORS.keys() - {"log_lr", "configuration"}))
def test_without_its_signal_none_can_tell(name):
    for case in ("empty", "steps alone", "all NaN"):
        assert PREDICTORS[name](HISTORIES[case], CONTEXT).status.startswith("cannot tell"), case


def test_nothing_given_is_changed(name):
    history, context = healthy(), dict(CONTEXT)
    first = PREDICTORS[name](history, context)
    pd.testing.assert_frame_equal(history, healthy())
    assert context == CONTEXT
    assert PREDICTORS[name](history, context) == first


@pytest.mark.parametrize("now", [20, 70, 110])
def test_a_prefix_is_all_it_sees(name, now):
    # The same prefix, cut from runs that differ from there on.
    futures = [healthy(), pd.concat([healthy().iloc[:now], 1e6 * healthy().iloc[now:]])]
    forecasts = [PREDICTORS[name](future.iloc[:now], CONTEXT) for future in futures]
    np.testing.assert_equal(forecasts[0], forecasts[1])


@pytest.mark.parametrize("column", ["loss", "grad_norm", "max_attention_logit"])
def test_single_precision_hardly_matters(name, column):
    double = PREDICTORS[name](healthy(), CONTEXT).probability
    single = PREDICTORS[name](healthy().astype({column: "float32"}), CONTEXT).probability
    assert single == pytest.approx(double, abs=1e-4)


def _spiky(strength):
    # Each is ten times the one before, which would hide an equal one: it is in the deviation.
    rows = healthy(600)
    for spike in range(1, int(strength) + 1):
        rows.loc[150 * spike, "loss"] = 10.0 ** (spike + 1)
    return rows


SIGNALS = {
    "log_lr": lambda s: (healthy(), {**CONTEXT, "lr": 1e-3 * 10**s}),
    "configuration": lambda s: (healthy(), {**CONTEXT, "lr": 1e-3 * 10**s}),
    "max_logit": lambda s: (
        healthy().assign(max_attention_logit=healthy()["max_attention_logit"] * 10**s),
        CONTEXT,
    ),
    "attention_entropy": lambda s: (healthy().assign(attention_entropy=3.5 - s), CONTEXT),
    "loss_against_sweep": lambda s: (healthy().assign(loss=healthy()["loss"] + s), CONTEXT),
    "loss_slope": lambda s: (healthy().assign(loss=3 + (s - 1) * np.arange(STEPS) / 50), CONTEXT),
    "learning_curve": lambda s: (
        healthy().assign(loss=1 + s + 3 * np.arange(1, STEPS + 1) ** -0.5),
        CONTEXT,
    ),
    "grad_norm_z": lambda s: (
        healthy().assign(grad_norm=healthy()["grad_norm"].where(healthy().index < 119, s)),
        CONTEXT,
    ),
    "spike_score": lambda s: (_spiky(s), CONTEXT),
    "skip_step": lambda s: (_spiky(s), CONTEXT),
}


def test_it_rises_with_its_signal(name):
    probabilities = [PREDICTORS[name](*SIGNALS[name](s)).probability for s in STRENGTHS]
    assert (np.diff(probabilities) > 0).all(), probabilities


@pytest.mark.parametrize("signal", ["max_attention_logit", "sweep_loss"])
def test_far_apart_scores_are_still_told_apart(signal):
    name = {"max_attention_logit": "max_logit", "sweep_loss": "loss_against_sweep"}[signal]
    sign = 1 if signal == "max_attention_logit" else -1
    tops = [
        BASELINES[name](healthy().assign(**{signal: sign * x}), CONTEXT).probability
        for x in (1e6, 1e8, 1e10)
    ]
    assert tops == sorted(set(tops))


def test_the_largest_logit_is_found_among_the_layers():
    layers = healthy().drop(columns="max_attention_logit")
    layers = layers.assign(max_attention_logit_layer0=3.0, max_attention_logit_layer1=200.0)
    assert "200" in BASELINES["max_logit"](layers, CONTEXT).reason


def test_the_newest_logits_count_and_by_their_logs():
    logits = np.array([1e6, 1.0, 10.0, 100.0])
    forecast = BASELINES["max_logit"](pd.DataFrame({"max_attention_logit": logits}), {})
    assert forecast.probability == pytest.approx(10 / (10 + 100))


def test_entropy_is_compared_with_the_context_or_with_its_start():
    entropies = pd.DataFrame({"attention_entropy": [3.0, 1.0, 1.0, 1.0]})
    with_length = BASELINES["attention_entropy"](entropies, {"data.sequence_length": 64})
    assert with_length.probability == pytest.approx(math.log(64) / (math.log(64) + 1))
    assert BASELINES["attention_entropy"](entropies, {}).probability == pytest.approx(0.75)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.3])
def test_a_power_law_is_extrapolated(exponent):
    steps = np.arange(15, 150, dtype=float)
    values = 2 + 3 * (steps + 1) ** -exponent
    assert power_law_at(300, steps, values) == pytest.approx(2 + 3 * 301**-exponent, abs=0.01)


def test_skip_step_counts_what_olmo_core_would_skip():
    history = _spiky(2.0)
    losses, norms = history["loss"].to_numpy(), history["grad_norm"].to_numpy()
    skipped = 0
    for i in range(64, len(history)):
        before = [x[max(0, i - 128) : i] for x in (losses, norms)]
        limits = [x.mean() + 6 * x.std(ddof=1) for x in before]
        skipped += losses[i] > limits[0] or norms[i] > limits[1]
    forecast = SkipStep()(history, CONTEXT)
    assert skipped > 0
    assert forecast.probability == pytest.approx(skipped / (len(history) - 64))
    assert f"{skipped} of {len(history) - 64} steps" in forecast.reason


def test_a_short_prefix_has_a_spike_score_but_no_skipped_step():
    short = healthy(40)
    short.loc[39, "loss"] = 50.0
    assert SpikeScore()(short, CONTEXT).probability > 0
    assert SkipStep()(short, CONTEXT).status.startswith("cannot tell: fewer than 65")


def test_a_spike_above_a_constant_past_is_one():
    flat = pd.DataFrame({"step": range(100), "loss": [2.0] * 99 + [2.1]})
    assert SpikeScore()(flat, {}).probability > 0
    assert SpikeScore()(flat.iloc[:99], {}).probability == 0
