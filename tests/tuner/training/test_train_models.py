"""Models of a user (frozen configs with build(), no base class), precisions and devices."""

import pytest
import torch
from short_runs import Bigram, follow, small

from foretune.tuner.config.run import PROBES
from foretune.tuner.training.devices import pick_device
from foretune.tuner.training.losses import cross_entropy
from foretune.tuner.training.train import Training, train


def test_a_user_s_model_without_taps_trains_and_has_no_tap_columns(text):
    outcome, rows, training = follow(small(text, {"model": Bigram(), "steps": 40}))
    assert outcome.outcome == "finished"
    assert outcome.final_val_loss < outcome.loss_at_init
    columns = {name for _, row in rows for name in row}
    taps = ("max_attention", "attention_entropy", "log_z", "logits_rms", "output_norm")
    assert not [name for name in columns if name.startswith(taps)]
    assert {"loss", "val_loss", "grad_norm", "lr", "tokens_seen", "seconds"} <= columns
    assert training.model.training


def test_a_probe_that_the_model_has_no_tap_for_is_refused(text):
    run = small(text, {"model": Bigram(), "probes": ("logits",)})
    with pytest.raises(ValueError, match="probes must each have a tap in the model, got none"):
        train(run, lambda s, m: None, device="cpu")


def test_validation_runs_in_evaluation_mode(text):
    """Dropout would make each validation random: here two of the same weights are equal."""
    run = small(text, {"model": Bigram(dropout=0.9)})
    torch.manual_seed(run.seed)
    model = run.model.build().eval()
    outcome, _, training = follow(run)
    inputs, targets = training.stream.validation
    with torch.no_grad():
        expected = float(cross_entropy(model(inputs), targets))
    assert outcome.loss_at_init == pytest.approx(expected, abs=1e-5)


def test_bfloat16_trains_and_differs_from_float32(text):
    changes = {"steps": 40, "eval_every": 40}
    full, full_rows, _ = follow(small(text, changes))
    half, half_rows, training = follow(small(text, {**changes, "precision": "bfloat16"}))
    assert half.outcome == "finished"
    assert half_rows[0][1]["loss"] != full_rows[0][1]["loss"]
    assert half_rows[0][1]["loss"] == pytest.approx(full_rows[0][1]["loss"], abs=0.05)
    assert half.final_val_loss < half.loss_at_init - 1.5
    assert half.final_val_loss == pytest.approx(full.final_val_loss, abs=0.1)
    assert training.flat.values.dtype == torch.float32
    reading, full_reading = half_rows[3][1], full_rows[3][1]
    for name in ("max_attention_logit", "log_z_mean", "logits_rms"):
        assert reading[name] == pytest.approx(full_reading[name], rel=0.05)


def test_bfloat16_readings_are_float32(text):
    rows = []
    t = Training(
        small(text, {"precision": "bfloat16", "probes": PROBES}),
        lambda s, m: rows.append(dict(m)),
        device="cpu",
    )
    t.advance()
    values = [rows[0][f"max_attention_logit_layer{i}"] for i in range(2)]
    assert all(float(torch.tensor(v).bfloat16()) != v for v in values)


def test_auto_is_the_gpu_where_there_is_one_and_a_missing_one_is_refused():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device must be there, got cuda:0 .*; use cpu.$"):
            pick_device("cuda:0")


def test_devices():
    for name in ("gpu", "cuda:x", "cpu:a"):
        with pytest.raises(ValueError, match=r"^device must be auto, cpu, cuda or cuda:N, got"):
            pick_device(name)
