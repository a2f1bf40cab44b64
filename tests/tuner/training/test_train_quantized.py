"""Number formats inside the training loop: schedule of the strength, resume, telemetry, images."""

import pytest
import torch
from short_runs import digest, follow, follow_in_two, small, without_time

from foretune.models.quantization.layers import quantized_layers
from foretune.tuner.config.override import override
from foretune.tuner.config.quantizers import QUANTIZERS
from foretune.tuner.config.resolve import resolve
from foretune.tuner.training.train import Training

CHANGING = [name for name, q in QUANTIZERS.items() if q.quantization.format != "none"]


@pytest.mark.parametrize("name", CHANGING)
def test_every_quantizer_trains_and_its_telemetry_is_there(name, text):
    run = override(small(text), {"quantization": QUANTIZERS[name].quantization})
    outcome, rows, training = follow(run)
    assert outcome.outcome == "finished"
    assert outcome.final_val_loss < outcome.loss_at_init
    assert len(training.quantized) == 8  # Two blocks of qkv, attention_out, mlp_in and mlp_out.
    read = [row for step, row in rows if "weight_scale" in row]
    assert len(read) == 4
    for row in read:
        assert 0 <= row["zero_fraction"] < 1
        assert row["weight_scale"] > 0
        assert 0 <= row["activation_clipped"] <= 1
        assert {f"zero_fraction_{kind}" for kind in ("qkv", "mlp_in", "mlp_out")} <= set(row)
    assert "trit_flip_rate" not in read[0]
    assert all(0 <= row["trit_flip_rate"] <= 1 for row in read[1:])


def test_full_precision_has_no_columns_of_number_formats(text):
    _, rows, training = follow(small(text))
    assert training.quantized == ()
    assert not any("zero_fraction" in row or "trit_flip_rate" in row for _, row in rows)


def test_weights_start_the_same_whatever_the_number_format(text):
    plain = Training(small(text), lambda step, row: None, device="cpu")
    ternary = override(small(text), {"quantization": QUANTIZERS["ternary-mean"].quantization})
    assert digest(Training(ternary, lambda step, row: None, device="cpu")) == digest(plain)


def test_before_its_start_a_run_is_the_full_precision_one_bit_for_bit(text):
    """At strength 0 the layers are those that they replaced."""
    late = {"quantization.format": "ternary", "quantization.start": 0.5}
    _, plain, _ = follow(small(text))
    _, rows, training = follow(small(text, late))
    losses = [[row["loss"] for _, row in some if "loss" in row] for some in (plain, rows)]
    assert losses[0][:6] == losses[1][:6]
    assert all(a != b for a, b in zip(losses[0][6:], losses[1][6:], strict=True))
    assert {layer.grid.strength for layer in quantized_layers(training.model).values()} == {1.0}


def test_the_strength_rises_linearly_after_the_start(text):
    changes = {
        "quantization.format": "ternary",
        "quantization.start": 0.25,
        "quantization.strength_warmup": 0.5,
    }
    training = Training(small(text, changes), lambda step, row: None, device="cpu")
    seen = []
    layer = next(iter(quantized_layers(training.model).values()))
    while training.step < 12:
        training._update()
        seen.append(layer.grid.strength)
    assert seen == pytest.approx([0, 0, 0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])


def test_the_loss_is_that_of_the_weights_as_they_are_now(text):
    """A grid kept past its update would give the loss of older weights."""
    run = small(text, {"quantization.format": "ternary", "micro_batch_size": 2})
    _, rows, training = follow(run)
    training.model.eval()
    inputs, targets = training.stream.validation
    with torch.no_grad():  # Without a refresh: computed from the weights.
        for layer in quantized_layers(training.model).values():
            layer.grid._cached = None
        logits = training.model(inputs)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert float(loss) == pytest.approx(rows[-1][1]["val_loss"], abs=1e-6)


@pytest.mark.parametrize("name", ["ternary-median", "control"])
def test_a_quantized_run_resumes_bit_for_bit_telemetry_included(name, text, tmp_path):
    run = override(small(text), {"quantization": QUANTIZERS[name].quantization})
    _, whole, training = follow(run)
    rows, resumed = follow_in_two(run, tmp_path, slices=2)
    assert without_time(rows) == without_time(whole)
    assert digest(resumed) == digest(training)


IMAGES = {
    "steps": 6,
    "eval_every": 2,
    "telemetry_every": 2,
    "data.name": "digits",
    "data.validation_images": 50,
    "batch_size": 8,
    "micro_batch_size": 8,
    "model.image_size": 8,
    "schedule.warmup_steps": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["vit-tiny", "cnn-tiny", "resnet-tiny", "mobilenet-tiny"])
@pytest.mark.parametrize("name", ["none", "ternary-median"])
def test_image_models_train_and_resume_bit_for_bit(preset, name, tmp_path):
    run = resolve(preset, overrides={**IMAGES, "quantizer": name})
    outcome, whole, training = follow(run)
    assert outcome.outcome == "finished"
    assert 2.2 < outcome.reference_loss < 2.4  # Ten classes, about as frequent: ln 10.
    accuracies = [row["val_accuracy"] for _, row in whole if "val_accuracy" in row]
    assert len(accuracies) == 4
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert whole[-1][1]["tokens_seen"] == 6 * 8
    rows, resumed = follow_in_two(run, tmp_path, slices=1)
    assert without_time(rows) == without_time(whole)
    assert digest(resumed) == digest(training)


def test_attention_logits_of_a_vit_are_in_its_telemetry_and_qk_norm_bounds_them():
    largest = {}
    for qk_norm in (False, True):
        changes = {**IMAGES, "model.qk_norm": qk_norm, "optimizer.lr": 0.3, "steps": 40}
        _, rows, _ = follow(resolve("vit-tiny", overrides=changes))
        largest[qk_norm] = max(
            r["max_attention_logit"] for _, r in rows if "loss" in r and "max_attention_logit" in r
        )
    assert largest[True] < largest[False]


@pytest.mark.parametrize(
    ("preset", "changes", "sentence"),
    [
        ("cnn-tiny", {"data.name": "glyphs"}, "model.classes must be 100 for data.name=glyphs"),
        ("cnn-tiny", {"model.image_size": 8}, "model.image_size must be 32 for data.name=clutt"),
        ("vit-tiny", {"model.channels": 3}, "model.channels must be 1 for data.name=cluttered"),
        ("cnn-tiny", {"data.name": "cluterd"}, "Did you mean cluttered"),
        ("cnn-tiny", {"data.name": "cifar10"}, "data.path must name the root folder"),
        ("lm-tiny", {"quantizer": "ternary"}, "quantizer must be one of none, .* got 'ternary'"),
        ("lm-tiny", {"quantization.format": "trenary"}, "quantization.format must be one of"),
        ("lm-tiny", {"quantization.fromat": "ternary"}, "Did you mean quantization.format"),
    ],
)
def test_what_does_not_fit_is_one_sentence(preset, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(preset, overrides=changes)
