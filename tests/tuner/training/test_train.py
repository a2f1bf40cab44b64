"""train(): what the sink gets, and each number against a computation of its own."""

import pytest
import torch
from short_runs import Rows, digest, follow, small

from foretune.tuner.config.run import PROBES
from foretune.tuner.training.losses import cross_entropy, z_loss
from foretune.tuner.training.train import Training


def test_each_row_describes_its_update(text):
    run = small(text)
    outcome, rows, _ = follow(run)
    assert [step for step, _ in rows] == list(range(13))
    for step, row in rows[:-1]:
        assert {"loss", "grad_norm", "lr", "tokens_seen", "seconds"} <= set(row)
        assert ("val_loss" in row) == (step in (0, 4, 8))
        assert ("max_attention_logit" in row) == (step % 3 == 0)
        assert row["tokens_seen"] == 4 * 16 * step
    assert set(rows[-1][1]) == {"val_loss", "tokens_seen", "seconds"}
    assert rows[-1][1]["tokens_seen"] == 4 * 16 * 12
    assert rows[0][1]["val_loss"] == outcome.loss_at_init
    assert rows[-1][1]["val_loss"] == outcome.final_val_loss
    seconds = [row["seconds"] for _, row in rows]
    assert seconds == sorted(seconds)
    assert (outcome.outcome, outcome.step) == ("finished", 12)
    assert outcome.reason == "all 12 steps done"
    assert outcome.value is None
    assert outcome.seconds >= seconds[-1] > 0


def test_the_last_step_is_validated_even_off_the_beat(text):
    outcome, rows, _ = follow(small(text, {"eval_every": 5}))
    assert [step for step, row in rows if "val_loss" in row] == [0, 5, 10, 12]
    assert outcome.final_val_loss == rows[-1][1]["val_loss"]


def test_readings_hold_every_documented_column(text):
    _, rows, _ = follow(small(text, {"probes": PROBES, "model.qk_norm": True}))
    kinds = {"embedding", "attention_norm", "qkv", "attention_out", "q_norm", "k_norm", "mlp_norm"}
    kinds |= {"mlp_in", "mlp_out", "final_norm", "head"}
    expected = {
        *("loss", "val_loss", "lr", "grad_norm", "tokens_seen", "seconds"),
        *("max_attention_logit", "attention_entropy", "log_z_mean", "logits_rms"),
        *(f"{c}_layer{i}" for c in ("max_attention_logit", "output_norm_rms") for i in range(2)),
        *(f"{what}_rms_{kind}" for what in ("grad", "param", "update") for kind in kinds),
    }
    assert set(rows[0][1]) == expected
    assert set(rows[3][1]) == expected - {"val_loss"}


def test_losses_are_those_of_the_model_on_its_batches(text):
    run = small(text)
    torch.manual_seed(run.seed)
    model = run.model.build()
    _, rows, training = follow(run)
    with torch.no_grad():
        for key, (inputs, targets) in (
            ("loss", training.stream.batch(run.seed, 0)),
            ("val_loss", training.stream.validation),
        ):
            expected = float(cross_entropy(model(inputs), targets))
            assert rows[0][1][key] == pytest.approx(expected, abs=1e-5)
        inputs, targets = training.stream.validation
        final = float(cross_entropy(training.model(inputs), targets))
    assert rows[-1][1]["val_loss"] == pytest.approx(final, abs=1e-5)


def test_one_update_is_the_one_computed_by_hand(text):
    """Sign step of Adam's first update, clipped, with z-loss and decay."""
    run = small(
        text,
        {
            "loss.z_loss": 0.01,
            "steps": 1,
            "schedule.warmup_steps": 0,
            "optimizer.weight_decay": 0.1,
            "optimizer.epsilon": 1e-3,
        },
    )
    torch.manual_seed(run.seed)
    model = run.model.build()
    outcome, rows, training = follow(run)
    inputs, targets = training.stream.batch(run.seed, 0)
    logits = model(inputs)
    loss = cross_entropy(logits, targets)
    (loss + 0.01 * z_loss(logits)).backward()
    g = torch.cat([p.grad.flatten() for p in model.parameters()])
    norm = float(g.norm())
    assert norm > 1
    assert rows[0][1]["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert rows[0][1]["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
    g = g / norm
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    expected = theta - 1e-2 * g / (g.abs() + 1e-3) - 0.1 * theta
    torch.testing.assert_close(training.flat.values.detach(), expected, rtol=0, atol=1e-5)
    assert outcome.outcome == "finished"


def test_training_learns(text):
    outcome, rows, _ = follow(small(text, {"steps": 60, "eval_every": 30}))
    assert outcome.final_val_loss < outcome.loss_at_init - 1.5
    assert outcome.objective == outcome.final_val_loss == rows[-1][1]["val_loss"]
    # In sight of what a model without context gets.
    assert abs(outcome.final_val_loss - outcome.reference_loss) < 1
    assert len(outcome.data_sha256) == 64


def test_validation_loss_never_includes_z_loss(text):
    runs = [follow(small(text, {"loss.z_loss": c})) for c in (0.0, 0.5)]
    (plain, plain_rows, without), (penalised, rows, with_penalty) = runs
    assert plain.loss_at_init == penalised.loss_at_init
    assert plain_rows[0][1]["loss"] == rows[0][1]["loss"]
    assert plain_rows[0][1]["grad_norm"] != rows[0][1]["grad_norm"]
    assert digest(without) != digest(with_penalty)
    inputs, targets = with_penalty.stream.validation
    with torch.no_grad():
        final = float(cross_entropy(with_penalty.model(inputs), targets))
    assert penalised.final_val_loss == pytest.approx(final, abs=1e-5)


def test_validation_in_parts_equals_validation_at_once(text):
    """300 windows of 16 don't divide into parts of 128: the mean is over windows, not parts."""
    outcome, _, training = follow(small(text, {"data.validation_sequences": 300}))
    inputs, targets = training.stream.validation
    with torch.no_grad():
        expected = float(cross_entropy(training.model(inputs), targets))
    assert outcome.final_val_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_add_up_to_the_batch(text, micro):
    """Epsilon 1e-4, so that a gradient of 1e-9 can't flip the sign of an update."""
    changes = {"batch_size": 8, "loss.z_loss": 0.01, "optimizer.epsilon": 1e-4}
    runs = [follow(small(text, {**changes, "micro_batch_size": size})) for size in (8, micro)]
    (_, whole_rows, whole), (_, parts_rows, parts) = runs
    for (_, row), (_, other) in zip(whole_rows, parts_rows, strict=True):
        for name in {"loss", "val_loss", "grad_norm", "max_attention_logit"} & set(row):
            assert other[name] == pytest.approx(row[name], abs=1e-5), name
    torch.testing.assert_close(parts.flat.values, whole.flat.values, rtol=0, atol=1e-5)


def test_micro_batches_read_the_same_rms(text):
    out = []
    for micro in (4, 1):
        rows = []
        t = Training(
            small(text, {"micro_batch_size": micro}),
            lambda s, m, rows=rows: rows.append(dict(m)),
            device="cpu",
        )
        t.advance()
        out.append(rows[0])
    for name in ("output_norm_rms_layer1", "logits_rms", "log_z_mean", "attention_entropy"):
        assert out[0][name] == pytest.approx(out[1][name], rel=1e-5)


def test_readings_change_no_bit_of_the_training(text):
    """Taps watched at every step, or never again after the first."""
    often, seldom = (follow(small(text, {"telemetry_every": n}))[2] for n in (1, 1000))
    assert digest(often) == digest(seldom)


def test_stopping_from_outside_sends_no_half_row_and_keeps_the_loss(text):
    rows: Rows = []
    training = Training(small(text), lambda s, m: rows.append((s, dict(m))), device="cpu")
    training.advance()
    reached = training.val_loss
    training.end("stopped", "by a scheduler")
    assert (training.outcome.outcome, training.outcome.step) == ("stopped", 4)
    assert training.outcome.objective == min(reached, training.loss_at_init)
    assert rows[-1][0] == 4
    assert set(rows[-1][1]) == {"val_loss", "tokens_seen", "seconds"}
