"""Learning rates that change at run time (update clipping, RMS-scaled) against formulas by hand."""

import pytest
import torch
from torch import Tensor
from updated_models import (
    QKV,
    adam_moments,
    assert_near,
    assert_same_bits,
    flat_optimizer,
    gradients,
    lr,
    trajectory,
    update,
    updated,
)

from foretune.models import Rule

PEAK, LAMBDA = 3e-2, 0.05


def rms(x: Tensor) -> float:
    return float((x**2).mean()) ** 0.5


def rms_t(own: dict, g: Tensor, t: int, epsilon: float) -> float:
    """StableAdamW's, u the second moment with g in it; call it after `adam_moments`."""
    u = own["v"] / (1 - 0.95**t)
    return float((g**2 / u.clamp(min=epsilon**2)).mean()) ** 0.5


def by_hand(*, clip: float = 0.0, scaled: bool = False, decay: str = "independent", factor=1.0):
    def formula(name, theta, g, t, own):
        m, v = adam_moments(own, g, t)
        base = lr(PEAK, t) * (factor if name.endswith(QKV) else 1.0)
        eta = base * (max(rms(theta), 1e-3) if scaled else 1.0)
        eta /= max(1.0, rms_t(own, g, t, 1e-8) / clip) if clip else 1.0
        kept = 1 - (lr(PEAK, t) / PEAK if decay == "independent" else base) * LAMBDA
        return theta * kept - eta * m / (v.sqrt() + 1e-8)

    return trajectory(formula)


def ours(rules=None, **fields):
    fields = {"lr": PEAK, "weight_decay": LAMBDA, "clip_norm": 0.0, **fields}
    return updated(flat_optimizer(rules=rules, **fields))


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_update_clipping_divides_the_learning_rate_and_leaves_decay(decay):
    assert_near(ours(update_clip=1.0, decay=decay), by_hand(clip=1.0, decay=decay))
    assert_near(ours(update_clip=0.5, decay=decay), by_hand(clip=0.5, decay=decay))


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_the_learning_rate_is_scaled_by_the_weights_rms_and_decay_is_not(decay):
    assert_near(ours(lr_scale="rms", decay=decay), by_hand(scaled=True, decay=decay))


def test_both_with_the_factor_of_a_parametrization():
    rules = {f"blocks.{i}.{QKV}": Rule(lr=0.25) for i in range(2)}
    fields = {"update_clip": 1.0, "lr_scale": "rms"}
    for decay in ("independent", "coupled"):
        expected = by_hand(clip=1.0, scaled=True, factor=0.25, decay=decay)
        assert_near(ours(rules, decay=decay, **fields), expected)


def test_weights_at_zero_grow_at_the_least_rms():
    optimizer = flat_optimizer(lr=PEAK, weight_decay=0.0, clip_norm=0.0, lr_scale="rms")
    with torch.no_grad():
        optimizer.flat.values.zero_()
    update(optimizer, gradients(optimizer.flat)[0], 0)
    moved = optimizer.flat.values.abs()
    assert float(moved.max()) == pytest.approx(PEAK / 2 * 1e-3, rel=1e-4)


def test_a_clip_that_nothing_reaches_changes_no_bit():
    plain = ours(weight_decay=0.0)
    assert_same_bits(ours(weight_decay=0.0, update_clip=1e6), plain)


def test_rms_t_of_each_tensor_and_the_ratio_of_the_clip():
    """A gradient that grows a hundredfold is ahead of its moment: RMS_t near sqrt(1 / 0.05)."""
    optimizer = flat_optimizer(lr=PEAK, clip_norm=0.0, update_clip=2.0)
    flat, seen = optimizer.flat, {n: {} for n in optimizer.flat.names}
    for t, g in enumerate(gradients(flat), start=1):
        flat.grads.copy_(g * (1 if t < 5 else 100))
        named = zip(flat.names, flat.views(flat.grads.double()), strict=True)
        expected = {}
        for name, part in named:
            adam_moments(seen[name], part, t)
            expected[name] = rms_t(seen[name], part, t, 1e-8)
        assert optimizer.rms_t() == pytest.approx(expected, rel=1e-4)
        optimizer.clip(1.0)
        optimizer.step(t - 1)
        ratio = min(1 / max(1.0, value / 2.0) for value in expected.values())
        assert optimizer.columns() == {"update_clip_ratio": pytest.approx(ratio, rel=1e-4)}
    assert max(expected.values()) > 2


def test_a_gradient_of_zero_has_an_rms_t_of_zero_even_without_epsilon():
    optimizer = flat_optimizer(epsilon=0.0)
    assert set(optimizer.rms_t().values()) == {0.0}
    optimizer.flat.grads.fill_(1e-30)  # Whose square is 0 in float32.
    assert max(optimizer.rms_t().values()) < 1e-6
