import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.laws.attenuation import attenuation

EPSILON = 1e-8


def gradient(n_params, lr):
    """Falls with size and with learning rate."""
    return 1e-6 * (n_params / 1e5) ** -0.6 * (lr / 1e-2) ** -0.4


def sweep(**columns):
    trials, rows = [], []
    for n_params in (9216, 36864, 147456):
        for lr in (1e-3, 1e-2, 1e-1):
            run = f"{n_params}-{lr:g}"
            trials.append(
                {"run_id": run, "n_params": n_params, "size": n_params, "optimizer.lr": lr}
                | {"optimizer.epsilon": EPSILON, "steps": 10, "last_step": 10, "seed": 0}
                | {"outcome": "finished", "diverged": False, "loss_at_init": 6.0}
                | {"final_val_loss": 2.0, "reference_loss": 3.0}
            )
            value = gradient(n_params, lr)
            rows += [{"run_id": run, "step": step, "grad_rms_qkv": value} for step in range(10)]
    return pd.DataFrame(trials), pd.DataFrame(rows).assign(**columns)


def test_the_law_of_gradients_is_recovered_and_epsilon_divided_out():
    found = attenuation(*sweep(), n_params=589824, lr=1e-2).iloc[0]
    expected = gradient(589824, 1e-2)
    assert found["kind"] == "qkv"
    assert found["gradient_rms"] == pytest.approx(expected, rel=0.05)
    assert found["attenuation"] == pytest.approx(expected / (expected + EPSILON), rel=0.01)
    assert found["low"] < expected < found["high"]
    assert not found["flagged"]


def test_gradients_near_epsilon_are_flagged():
    trials, telemetry = sweep()
    found = attenuation(trials, telemetry, n_params=589824, lr=1e-2, epsilon=1e-7).iloc[0]
    assert found["flagged"]
    assert found["probability_near"] > 0.95
    assert found["attenuation"] < 0.9


def test_beyond_the_fitted_rates_it_cannot_tell():
    found = attenuation(*sweep(), n_params=589824, lr=1.0).iloc[0]
    assert found["status"].startswith("cannot tell: learning rate 1 lies outside")
    assert math.isnan(found["attenuation"])
    assert not found["flagged"]


def test_kinds_that_the_family_lacks_are_left_out():
    found = attenuation(*sweep(grad_rms_q_norm=np.nan), n_params=589824, lr=1e-2)
    assert found["kind"].tolist() == ["qkv"]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_epsilon_that_is_none_is_refused_in_a_sentence(bad):
    with pytest.raises(ValueError, match="epsilon must be one positive number"):
        attenuation(*sweep(), n_params=1e5, lr=1e-2, epsilon=bad)
    trials, telemetry = sweep()
    trials.loc[0, "optimizer.epsilon"] = 1e-6
    with pytest.raises(ValueError, match="epsilon must be one positive number"):
        attenuation(trials, telemetry, n_params=1e5, lr=1e-2)
