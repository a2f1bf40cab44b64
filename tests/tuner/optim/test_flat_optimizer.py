"""The optimizer against trajectories computed by hand in numpy float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.optim.lr_schedule import lr_at

torch.set_num_threads(1)

STEPS = 5
SCHEDULE = Schedule(warmup_steps=2, final_lr=1e-4)
PEAK = 3e-2
LR = [PEAK / 2, PEAK, PEAK, (PEAK + 1e-4) / 2, 1e-4]
"""Warm-up over two updates, then half a cosine over three: 0, 1/2, 1 of the way down."""


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2, bias=False))


def gradients(n: int) -> list[np.ndarray]:
    """Of norms from far below 1 to far above, with exact zeros among them."""
    rng = np.random.default_rng(0)
    scales = (3.0, 0.01, 0.3, 20.0, 1.0)
    return [s * rng.standard_normal(n) * (rng.random(n) > 0.2) for s in scales]


def by_hand(
    theta: np.ndarray, grads: list[np.ndarray], config: Optimizer, visit: Callable
) -> np.ndarray:
    """theta <- theta - s_t (eta Delta + lambda theta), or coupled theta - eta_t (Delta + lambda
    theta); Delta from the definition of Adam (Kingma and Ba 2015, algorithm 1).
    """
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, g in enumerate(grads):
        norm = math.sqrt(float((g**2).sum()))
        if config.clip_norm and norm > config.clip_norm:
            g = g * config.clip_norm / norm
        m = config.beta1 * m + (1 - config.beta1) * g
        v = config.beta2 * v + (1 - config.beta2) * g**2
        m_hat, v_hat = m / (1 - config.beta1 ** (t + 1)), v / (1 - config.beta2 ** (t + 1))
        delta = m_hat / (np.sqrt(v_hat) + config.epsilon)
        s = LR[t] / config.lr
        if config.decay == "independent":
            theta = theta - s * (config.lr * delta + config.weight_decay * theta)
        else:
            theta = theta - LR[t] * (delta + config.weight_decay * theta)
        visit(t, norm, delta, theta)
    return theta


@pytest.mark.parametrize("decay", ["independent", "coupled"])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_five_steps_equal_the_trajectory_computed_by_hand(decay, clip_norm, epsilon, weight_decay):
    config = Optimizer(
        lr=PEAK, decay=decay, clip_norm=clip_norm, epsilon=epsilon, weight_decay=weight_decay
    )
    flat = FlatParameters(module())
    optimizer = FlatOptimizer(flat, config, SCHEDULE, STEPS)
    grads = gradients(sum(flat.sizes))
    start = flat.values.detach().double().numpy()

    def visit(t: int, norm: float, delta: np.ndarray, theta: np.ndarray) -> None:
        flat.grads.copy_(torch.from_numpy(grads[t]))
        assert optimizer.clip(0.0) == pytest.approx(norm, rel=1e-5)
        assert optimizer.step(t) == pytest.approx(LR[t], rel=1e-6)
        assert not flat.grads.any()
        np.testing.assert_allclose(flat.values.detach().numpy(), theta, rtol=0, atol=1e-5)
        ours = optimizer.unscaled_update().numpy()
        # Where a gradient was below epsilon, 0/epsilon is 0 in both.
        np.testing.assert_allclose(ours, delta, rtol=1e-4, atol=1e-5)

    end = by_hand(start, grads, config, visit)
    assert np.abs(end - start).max() > PEAK


def test_independent_decay_takes_the_same_share_at_every_learning_rate():
    """Without a gradient a weight shrinks by s_t lambda a step; coupled by eta_t lambda."""
    left = {}
    for decay in ("independent", "coupled"):
        for lr in (1e-3, 1e-1):
            config = Optimizer(lr=lr, decay=decay, weight_decay=0.01)
            flat = FlatParameters(module())
            before = flat.values.detach().clone()
            schedule = Schedule(name="constant", warmup_steps=2)
            optimizer = FlatOptimizer(flat, config, schedule, STEPS)
            for t in range(STEPS):
                optimizer.step(t)
            left[decay, lr] = flat.values.detach().norm() / before.norm()
    expected = (1 - 0.005) * (1 - 0.01) ** 4
    assert float(left["independent", 1e-3]) == pytest.approx(expected, rel=1e-5)
    assert float(left["independent", 1e-1]) == pytest.approx(expected, rel=1e-5)
    assert float(left["coupled", 1e-3]) == pytest.approx((1 - 5e-6) * (1 - 1e-5) ** 4, rel=1e-5)
    assert float(left["coupled", 1e-1]) == pytest.approx((1 - 5e-4) * (1 - 1e-3) ** 4, rel=1e-5)


def test_clipping_scales_to_the_limit_and_returns_the_norm_before():
    flat = FlatParameters(module())
    optimizer = FlatOptimizer(flat, Optimizer(clip_norm=2.0), SCHEDULE, STEPS)
    for given, left in ((8.0, 2.0), (1.5, 1.5), (0.0, 0.0)):
        flat.grads.fill_(given / math.sqrt(flat.grads.numel()))
        assert optimizer.clip(0.0) == pytest.approx(given, rel=1e-5)
        assert float(flat.grads.norm()) == pytest.approx(left, rel=1e-5)


def test_clip_norm_zero_switches_clipping_off():
    flat = FlatParameters(module())
    flat.grads.fill_(1e4)
    optimizer = FlatOptimizer(flat, Optimizer(clip_norm=0.0), SCHEDULE, STEPS)
    assert optimizer.clip(0.0) == pytest.approx(1e4 * math.sqrt(flat.grads.numel()))
    assert torch.equal(flat.grads, torch.full_like(flat.grads, 1e4))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_norm(value):
    flat = FlatParameters(module())
    flat.grads[3] = value
    optimizer = FlatOptimizer(flat, Optimizer(), SCHEDULE, STEPS)
    assert not math.isfinite(optimizer.clip(0.0))


@pytest.mark.parametrize(("steps", "warmup"), [(200, 10), (20, 1), (7, 0), (100, 25)])
def test_the_schedule_warms_up_peaks_and_ends_at_final_lr(steps, warmup):
    schedule = Schedule(warmup_steps=warmup, final_lr=1e-5)
    lrs = [lr_at(schedule, peak=0.1, steps=steps, step=t) for t in range(steps)]
    assert lrs[:warmup] == pytest.approx([0.1 * (t + 1) / warmup for t in range(warmup)])
    assert lrs[warmup] == max(lrs) == pytest.approx(0.1)
    assert lrs[-1] == pytest.approx(1e-5, rel=1e-6)
    assert all(a > b for a, b in zip(lrs[warmup:], lrs[warmup + 1 :], strict=False))
    assert all(lr > 0 for lr in lrs)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (20, 19)])
def test_a_single_step_after_the_warm_up_is_at_the_peak(steps, warmup):
    schedule = Schedule(warmup_steps=warmup, final_lr=1e-5)
    assert lr_at(schedule, peak=0.1, steps=steps, step=steps - 1) == pytest.approx(0.1)
    if steps > 2:
        schedule = Schedule(warmup_steps=warmup - 1, final_lr=1e-5)
        assert lr_at(schedule, peak=0.1, steps=steps, step=steps - 1) == pytest.approx(1e-5)


def test_the_cosine_is_half_way_down_half_way_through():
    schedule = Schedule(warmup_steps=10, final_lr=0.02)
    assert lr_at(schedule, peak=0.1, steps=111, step=60) == pytest.approx(0.06)
    quarter = 0.02 + 0.08 * (1 + math.cos(math.pi / 4)) / 2
    assert lr_at(schedule, peak=0.1, steps=111, step=35) == pytest.approx(quarter)


def test_a_constant_schedule_stays_at_the_peak():
    schedule = Schedule(name="constant", warmup_steps=3)
    lrs = [lr_at(schedule, peak=0.3, steps=9, step=t) for t in range(9)]
    assert lrs == pytest.approx([0.1, 0.2, *[0.3] * 7])


def test_flattening_changes_no_value_and_no_output():
    model, plain = module(), module()
    flat = FlatParameters(model)
    x = torch.randn(6, 4)
    assert torch.equal(model(x), plain(x))
    assert torch.equal(flat.values, torch.cat([p.flatten() for p in plain.parameters()]))
    assert flat.names == [name for name, _ in plain.named_parameters()]
    assert [v.numel() for v in flat.views(flat.values)] == flat.sizes


def test_weights_and_gradients_are_views_into_the_buffers():
    model = module()
    flat = FlatParameters(model)
    loss = model(torch.randn(6, 4)).square().sum()
    loss.backward()
    assert torch.equal(flat.grads, torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert flat.grads.any()
    once = flat.grads.clone()
    model(torch.zeros(1, 4)).sum().backward()
    assert not torch.equal(flat.grads, once)
    with torch.no_grad():
        flat.values.zero_()
    assert not any(p.any() for p in model.parameters())


def test_loading_weights_keeps_the_views():
    model = module()
    flat = FlatParameters(model)
    model.load_state_dict({k: torch.full_like(v, 2.0) for k, v in model.state_dict().items()})
    assert torch.equal(flat.values, torch.full_like(flat.values, 2.0))


def test_a_shared_weight_is_held_once_and_a_frozen_one_not_at_all():
    model = module()
    tied = nn.Linear(4, 3)
    tied.weight = model[0].weight
    frozen = nn.Linear(2, 2).requires_grad_(False)
    both = nn.ModuleList([model, tied, frozen])
    before = frozen.weight.clone()
    flat = FlatParameters(both)
    assert sum(flat.sizes) == sum(p.numel() for p in both.parameters() if p.requires_grad)
    with torch.no_grad():
        flat.values.fill_(1.0)
    assert tied.weight is model[0].weight
    assert torch.equal(tied.weight, torch.ones(3, 4))
    assert torch.equal(frozen.weight, before)


def test_a_model_without_parameters_or_of_another_type_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^model must have parameters that .*, got none.$"):
        FlatParameters(nn.ReLU())
    with pytest.raises(
        ValueError, match=r"^model must hold float32 parameters, got torch.float64; set precision"
    ):
        FlatParameters(module().double())
