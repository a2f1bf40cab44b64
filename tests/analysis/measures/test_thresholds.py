import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.measures.thresholds import (
    ATTENTION_LOGIT,
    PAPER_ATTENTION_LOGIT,
    calibrate,
    label_degraded,
)


def runs(rng, line=300.0, count=12):
    """One curve over learning rates per size: the loss suffers where the signal passes the line."""
    rows = []
    for n_params in (1e4, 1e5, 1e6):
        for lr in np.geomspace(1e-3, 1, count):
            value = 10 * (lr / 1e-3) ** (1.0 + 0.2 * np.log10(n_params / 1e4))
            past = np.log10(value / line) + rng.normal(0, 0.05)
            loss = 2.0 + 0.05 * abs(np.log10(lr / 1e-2)) + (0.8 if past > 0 else 0.0)
            rows.append((n_params, lr, value, loss, 6.3))
    return pd.DataFrame(rows, columns=["n_params", "lr", "value", "loss", "loss_at_init"])


def test_the_calibrated_line_lies_where_the_loss_begins_to_suffer():
    found = calibrate(runs(np.random.default_rng(0)), reference=3.1)
    assert found.status.startswith("ok: a logistic over")
    assert found.low < 300 < found.high
    assert found.value == pytest.approx(300, rel=0.4)
    assert "the given 3.1 nats" in found.evidence


def test_too_few_runs_cannot_tell_and_show_both_known_lines():
    found = calibrate(runs(np.random.default_rng(0), count=3), reference=3.1)
    assert math.isnan(found.value)
    assert found.status.startswith("cannot tell: calibration needs 8 degraded and 8 other runs")
    assert "the default is 100, the paper's line 10000" in found.status


def test_slow_runs_below_the_optimum_are_not_degraded():
    frame = pd.DataFrame(
        {"lr": [1e-3, 1e-2, 1e-1], "loss": [3.0, 2.0, 3.0], "loss_at_init": 6.0, "n_params": 1e4}
    )
    degraded, against = label_degraded(frame, reference=3.1)
    assert degraded.tolist() == [False, False, True]
    assert against == "excess over 0.1 against the given 3.1 nats"


def test_what_is_not_known_is_neither_degraded_nor_counted():
    """No loss; a size that learned nothing, whose losses are all at the reference or above."""
    curve = {"lr": [1e-2, 3e-2, 1e-1], "loss_at_init": 6.0}
    good = pd.DataFrame(curve | {"loss": [2.0, 2.5, math.nan], "n_params": 1e4})
    flat = pd.DataFrame(curve | {"loss": [3.1, 3.1, 3.5], "n_params": 1e5})
    frame = pd.concat([good, flat], ignore_index=True)
    degraded, _ = label_degraded(frame, reference=3.1)
    assert degraded.isna().tolist() == [False, False, True, True, True, True]
    assert degraded.dropna().tolist() == [False, True]
    found = calibrate(frame.assign(value=100.0), reference=3.1)
    assert (found.n_degraded, found.n_other) == (1, 1)


def test_a_run_that_ended_above_the_reference_lost_it_all():
    frame = pd.DataFrame(
        {"lr": [1e-2, 1e-1], "loss": [2.0, math.inf], "loss_at_init": 6.0, "n_params": 1e4}
    )
    degraded, _ = label_degraded(frame, reference=3.1, level=0.999)
    assert degraded.tolist() == [False, True]


def test_the_fallback_is_named():
    frame = pd.DataFrame(
        {"lr": [1e-2, 1e-1], "loss": [2.0, 2.3], "loss_at_init": 6.0, "n_params": 1e4}
    )
    degraded, against = label_degraded(frame)
    assert degraded.tolist() == [False, False]
    assert "for want of a reference, which hides small excess" in against
    recorded, against = label_degraded(frame.assign(reference_loss=3.1))
    assert recorded.tolist() == [False, True]
    assert against.endswith("the recorded reference loss")


def test_the_default_line_carries_evidence_and_horizon():
    assert ATTENTION_LOGIT.value == 100
    assert PAPER_ATTENTION_LOGIT == 1e4
    assert "head dim 16" in ATTENTION_LOGIT.horizon
    assert "27 of 27" in ATTENTION_LOGIT.evidence
