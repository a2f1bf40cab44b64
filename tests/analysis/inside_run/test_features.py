"""Features are causal, the same live as from a file, and say NaN where nothing was read."""

import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.inside_run.features import FEATURES, Trace, read_features, watched

CONTEXT = {"total_steps": 200, "lr": 1e-2, "n_params": 1e4, "reference_loss": 3.0}


def history(steps=40, growth=1.5):
    step = np.arange(steps)
    frame = pd.DataFrame({"step": step, "loss": 6.0 - 0.05 * step, "grad_norm": 2.0})
    frame["max_attention_logit"] = np.where(step % 2 == 0, 3.0 * (step + 1.0) ** growth, np.nan)
    frame["attention_entropy"] = 3.0 / (step + 1)
    frame["output_norm_rms_layer0"] = 1.0
    frame["output_norm_rms_layer2"] = 10.0 ** (step / 20)
    frame["update_rms_qkv"], frame["param_rms_qkv"] = 1e-3, 1e-1
    frame["log_z_mean"], frame["logits_rms"] = 5.0 + 0.1 * step, 1.0
    frame["seconds"] = 1.0
    return frame


def features(frame, context=CONTEXT):
    return read_features(Trace.of(frame), context)


def test_a_power_of_the_step_has_its_exponent_as_slope():
    found = features(history(growth=1.5))
    assert found["logit_slope"] == pytest.approx(1.5)
    assert found["logit_rise"] == pytest.approx(1.5 * np.mean(np.log10([35, 37, 39])))
    assert found["logit_projected"] == pytest.approx(
        found["logit"] + 1.5 * math.log10(100 / 39), abs=1e-9
    )
    assert found["update"] == pytest.approx(-2)
    assert found["update_output"] == pytest.approx(0)
    assert found["rate_size"] == pytest.approx(0)
    assert found["output"] == pytest.approx(38 / 20)


def test_a_live_run_gives_what_its_file_gives():
    frame, live = history(), Trace()
    for row in frame.to_dict("records"):
        live.append(int(row.pop("step")), row)
    assert read_features(live, CONTEXT) == features(frame)
    assert "seconds" not in live.series


@pytest.mark.parametrize("frame", [pd.DataFrame(), history()[["step"]], history(0)])
def test_nothing_read_is_not_a_number(frame):
    found = features(frame)
    assert set(found) == set(FEATURES)
    assert all(math.isnan(found[name]) for name in FEATURES if not name.startswith("rate"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_readings_that_are_no_numbers_are_left_out(bad):
    frame = history(30)
    spoiled = pd.concat([frame, pd.DataFrame({name: [bad] for name in frame}).assign(step=30)])
    assert features(spoiled) == features(frame)


def test_constant_zero_and_single_readings_give_finite_numbers():
    frame = history(1)
    assert np.isfinite(list(features(frame).values())).all()
    still = history(20).assign(max_attention_logit=0.0, loss=0.0, grad_norm=0.0)
    assert np.isfinite(list(features(still).values())).all()


def test_watched_are_the_columns_that_features_read():
    assert watched(["loss", "seconds", "lr", "update_rms_qkv", "output_norm_rms_layer1"]) == [
        "loss",
        "update_rms_qkv",
        "output_norm_rms_layer1",
    ]
