"""Cross-entropy and z-loss against their formulas. Shapes: B, T, V."""

import math

import pytest
import torch

from foretune.tuner.training.losses import cross_entropy, z_loss

torch.set_num_threads(1)


def draw(*, requires_grad: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits_BTV = (3 * torch.randn(2, 5, 7, dtype=torch.float32)).requires_grad_(requires_grad)
    return logits_BTV, torch.randint(7, (2, 5))


def test_cross_entropy_is_the_mean_negative_log_probability_in_nats():
    logits, targets = draw(requires_grad=False)
    p = logits.double().exp() / logits.double().exp().sum(-1, keepdim=True)
    picked = [math.log(p[b, t, targets[b, t]]) for b in range(2) for t in range(5)]
    assert float(cross_entropy(logits, targets)) == pytest.approx(-sum(picked) / 10, abs=1e-6)


def test_cross_entropy_of_equal_logits_is_log_v():
    loss = cross_entropy(torch.zeros(2, 3, 256), torch.zeros(2, 3, dtype=torch.long))
    assert float(loss) == pytest.approx(math.log(256), abs=1e-6)


def test_z_loss_is_the_mean_squared_log_normaliser():
    logits, _ = draw(requires_grad=False)
    log_z = logits.double().exp().sum(-1).log()
    assert float(z_loss(logits)) == pytest.approx(float((log_z**2).mean()), rel=1e-6)


@pytest.mark.parametrize("c", [0.0, 1e-4, 0.1])
def test_gradient_with_z_loss_is_one_plus_two_c_log_z_times_p_minus_onehot(c):
    logits, targets = draw()
    (cross_entropy(logits, targets) + c * z_loss(logits)).backward()
    with torch.no_grad():
        log_z = logits.logsumexp(-1, keepdim=True)
        p = (logits - log_z).exp()
        onehot = torch.nn.functional.one_hot(targets, 7)
        expected = ((1 + 2 * c * log_z) * p - onehot) / targets.numel()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-7)


def test_losses_of_bfloat16_logits_are_computed_in_float32():
    logits, targets = draw(requires_grad=False)
    low = logits.bfloat16()
    assert cross_entropy(low, targets).dtype == z_loss(low).dtype == torch.float32
    assert torch.equal(cross_entropy(low, targets), cross_entropy(low.float(), targets))
    assert torch.equal(z_loss(low), z_loss(low.float()))


def test_what_is_not_a_number_goes_through():
    logits, targets = draw(requires_grad=False)
    logits[0, 0, 0] = math.nan
    assert math.isnan(float(cross_entropy(logits, targets)))
    assert math.isnan(float(z_loss(logits)))
    logits[0, 0, 0] = math.inf
    assert not math.isfinite(float(cross_entropy(logits, targets)))
    assert float(z_loss(logits)) == math.inf
