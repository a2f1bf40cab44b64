"""A tiny transformer, gradients for it, and updates of it by an optimizer or by formulas."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foretune.models import Rule, TransformerConfig
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters

torch.set_num_threads(1)

CONFIG = TransformerConfig(width=16, depth=2, head_dim=8, vocab_size=12, max_positions=8)
CONSTANT = Schedule(name="constant", warmup_steps=2)
"""Of five updates the first has half the peak learning rate."""
STEPS = 5
SCALES = (0.5, 0.01, 0.3, 3.0, 1.0)
"""Of the gradients of each update."""
QKV = "attention.qkv.weight"


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return CONFIG.build()


def gradients(flat: FlatParameters, steps: int = STEPS) -> list[Tensor]:
    """Gradients of all parameters, flat, a tensor for each update."""
    generator = torch.Generator().manual_seed(1)
    scales = [SCALES[t % len(SCALES)] for t in range(steps)]
    return [s * torch.randn(flat.values.shape, generator=generator) for s in scales]


def flat_optimizer(
    model: nn.Module | None = None, rules: Mapping[str, Rule] | None = None, **fields: Any
) -> FlatOptimizer:
    flat = FlatParameters(model or transformer())
    return FlatOptimizer(flat, Optimizer(**fields), CONSTANT, STEPS, rules)


def update(optimizer: FlatOptimizer, grads: Tensor, step: int, loss: float = 1.0) -> None:
    optimizer.flat.grads.copy_(grads)
    optimizer.clip(loss)
    optimizer.step(step)


def updated(optimizer: FlatOptimizer) -> dict[str, Tensor]:
    """Weights after five updates."""
    for t, grads in enumerate(gradients(optimizer.flat)):
        update(optimizer, grads, t)
    return by_name(optimizer.flat, optimizer.flat.values)


def by_name(flat: FlatParameters, values: Tensor) -> dict[str, Tensor]:
    """The parts of a flat tensor, in the parameters' shapes, as copies."""
    parts = zip(flat.names, flat.shapes, flat.views(values), strict=True)
    return {name: part.clone().view(shape) for name, shape, part in parts}


def trajectory(formula: Any, **state: Any) -> dict[str, Tensor]:
    """Weights after five updates, each tensor by `formula(name, theta, g, t, own)` in float64.

    own is a dict that stays with the tensor.
    """
    flat = FlatParameters(transformer())
    theta = {n: v.double() for n, v in by_name(flat, flat.values).items()}
    own = {n: dict(state) for n in theta}
    for t, grads in enumerate(gradients(flat), start=1):
        for name, g in by_name(flat, grads).items():
            theta[name] = formula(name, theta[name], g.double(), t, own[name])
    return theta


def lr(peak: float, t: int) -> float:
    """Of update t, from 1, in CONSTANT."""
    return peak * min(1.0, t / 2)


def adam_moments(own: dict[str, Any], g: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """m and v of Adam, corrected, at betas 0.9 and 0.95; own keeps them."""
    own["m"] = 0.9 * own.get("m", torch.zeros_like(g)) + 0.1 * g
    own["v"] = 0.95 * own.get("v", torch.zeros_like(g)) + 0.05 * g**2
    return own["m"] / (1 - 0.9**t), own["v"] / (1 - 0.95**t)


def assert_near(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name in theirs:
        torch.testing.assert_close(ours[name].double(), theirs[name].double(), rtol=0, atol=2e-6)
    moved = by_name(FlatParameters(transformer()), FlatParameters(transformer()).values)
    assert max(float((ours[n] - moved[n]).abs().max()) for n in ours) > 1e-3


def assert_same_bits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
