"""What a forecast says beside the critical rate: recovered from sweeps with a known truth."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic import Truth, critical_lr, start_sweep, write_run, write_sweep

from foretune.analysis import families, load, predict
from foretune.analysis.across_scale.outlook import best_rates, outlooks
from foretune.analysis.across_scale.prediction import read_prediction
from foretune.analysis.measures.first_failure import (
    describe_signal,
    first_failure_sentence,
    first_failures,
)

LRS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("outlook")
    return load(write_sweep(root / "s", widths=(16, 32, 64), lrs=LRS, seeds=(0, 1), noise=0.02))


def family_of(records, norm):
    return next(f for f in families(records.trials) if f.values["model.qk_norm"] is norm)


def found(records, norm, n_params=12 * 128**2 * 3):
    return outlooks(records.trials, records.telemetry, family_of(records, norm), 0.9)(n_params)


def test_rates_follow_the_planted_law(records):
    prospect = found(records, norm=False)
    critical = critical_lr(12 * 128**2 * 3)
    assert prospect.best_lr.median < critical < prospect.unstable_lr.median
    assert prospect.best_lr.low < prospect.best_lr.median < prospect.best_lr.high
    assert critical / 2 < prospect.degraded_lr.median < 2 * critical
    assert prospect.best_lr.median < prospect.degraded_lr.median < prospect.unstable_lr.median
    assert prospect.unstable_lr.status.startswith("ok: 4 times above")


def test_the_fix_is_counted_on_the_twins(records):
    prospect = found(records, norm=False)
    assert "qk-layernorm was worth more than 0.1 nats in" in prospect.fix
    assert "a third of the learning rate was worth" in prospect.fix
    assert prospect.decay == ""


def test_without_crossings_every_estimate_says_so(records):
    prospect = found(records, norm=True)
    assert prospect.unstable_lr.status.startswith("cannot tell")
    assert np.isnan(prospect.unstable_lr.median)
    assert prospect.first == "no run was unstable"


def test_the_best_rate_is_the_vertex_or_a_bound():
    log_lr = np.log10([1e-3, 1e-2, 1e-1])
    inside = pd.DataFrame({"n_params": 1e4, "lr": 10**log_lr, "loss": (log_lr + 1.8) ** 2})
    edge = inside.assign(n_params=1e5, loss=-log_lr)
    rows = best_rates(pd.concat([inside, edge])).set_index("n_params")
    assert rows.loc[1e4, "critical_lr"] == pytest.approx(10**-1.8)
    assert np.isnan(rows.loc[1e5, "critical_lr"])
    assert rows.loc[1e5, "low"] == pytest.approx(1e-2)


def test_the_best_decay_is_named_where_it_varied(tmp_path):
    start_sweep(tmp_path)
    for width in (16, 32):
        for decay, gap in ((0.0, 0.05), (1e-3, 0.0), (1e-2, 0.2)):
            for lr in LRS[:4]:
                extra = (("optimizer.weight_decay", decay),)
                write_run(tmp_path, Truth(width=width, lr=lr, gap=gap, extra=extra))
    records = load(tmp_path)
    family = next(iter(families(records.trials)))
    prospect = outlooks(records.trials, records.telemetry, family, 0.9)(1e5)
    assert prospect.decay == "weight decay 0.001 was best at size 32, by 0.050 nats"


def test_the_signal_that_leaves_first_is_found():
    step = np.arange(20)
    calm = pd.DataFrame(
        {"step": step, "grad_norm": 1.0, "log_z_mean": 5.0, "max_attention_logit_layer0": 3.0}
    )
    late = np.where(step >= 12, 9.0, 1.0)
    early = np.where(step >= 5, 50.0, 3.0)
    wild = calm.assign(grad_norm=late, max_attention_logit_layer0=early)
    telemetry = pd.concat([calm.assign(run_id="calm"), wild.assign(run_id="wild")])
    trials = pd.DataFrame({"run_id": ["calm", "wild"], "size": 32.0})
    labels = pd.DataFrame(
        {"group": 0, "healthy": [True, False], "unstable": [False, True]}, index=["calm", "wild"]
    )
    failures = first_failures(trials, telemetry, labels)
    assert failures[["signal", "step"]].to_numpy().tolist() == [["max_attention_logit_layer0", 5]]
    assert first_failure_sentence(failures, 1) == (
        "the largest attention logit of block 0 leaves the healthy runs' range first in 1 of 1 "
        "unstable runs, at step 5 (median)"
    )
    assert first_failures(trials, telemetry, labels.assign(healthy=False)).empty
    assert describe_signal("output_norm_rms_layer2") == "the output of block 2"


def test_a_prediction_carries_the_outlook_through_its_file(records, tmp_path):
    prediction = predict(records, n_params=5.9e5, lr=1e-2)
    path = tmp_path / "prediction.json"
    path.write_text(prediction.to_json())
    assert read_prediction(path).outlook == json.loads(path.read_text())["outlook"]
    assert prediction.outlook["best_lr"]["median"] > 0
    cured = predict(records, n_params=5.9e5, family=family_of(records, True).label)
    assert json.loads(cured.to_json())["outlook"]["unstable_lr"]["median"] is None
