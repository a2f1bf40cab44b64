"""Gradients, parameters and updates by kind, of any model and the common optimizers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from foretune.tuner.training.readings import by_kind, kind_of


class ParameterReader:
    """Reads `grad_norm` and `grad_rms_`, `param_rms_` and `update_rms_` of each kind."""

    def __init__(self, root: nn.Module, optimizers: Sequence[Optimizer]):
        named = [(name, p) for name, p in root.named_parameters() if p.requires_grad]
        self._parameters = [p for _, p in named]
        self._kinds = [[kind_of(name)] for name, _ in named]
        self._optimizers = optimizers

    def grad_norm(self) -> float:
        """Returns the norm of all gradients together; NaN where there are none yet."""
        grads = [_dense(p.grad) for p in self._parameters if p.grad is not None]
        if not grads:
            return math.nan
        return float(torch.linalg.vector_norm(_norms(grads)))

    def columns(self) -> dict[str, float]:
        """Returns the columns as they stand; an update is the newest one, before rate and decay."""
        read = {
            "grad_rms": [None if p.grad is None else _dense(p.grad) for p in self._parameters],
            "param_rms": [p.detach() for p in self._parameters],
            "update_rms": self._updates(),
        }
        columns: dict[str, float] = {}
        for prefix, tensors in read.items():
            columns |= self._by_kind(prefix, tensors)
        return columns

    def _by_kind(self, prefix: str, tensors: list[Tensor | None]) -> dict[str, float]:
        there = [(t, kinds) for t, kinds in zip(tensors, self._kinds, strict=True) if t is not None]
        if not there:
            return {}
        kinds = [k for _, k in there]
        counts = by_kind(kinds, [float(t.numel()) for t, _ in there])
        squares = _norms([t for t, _ in there]).square().tolist()
        sums = by_kind(kinds, squares)
        return {f"{prefix}_{kind}": (sums[kind] / counts[kind]) ** 0.5 for kind in sums}

    def _updates(self) -> list[Tensor | None]:
        known = {
            id(p): (one.state.get(p, {}), group)
            for one in self._optimizers
            for group in one.param_groups
            for p in group["params"]
        }
        return [last_update(*known[id(p)]) if id(p) in known else None for p in self._parameters]


def last_update(state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor | None:
    """Returns the newest update before learning rate and decay, by an optimizer's own state.

    Of Adam's kin (Kingma and Ba 2015, algorithm 1) and of SGD with momentum; None for others.
    """
    mean, square, steps = state.get("exp_avg"), state.get("exp_avg_sq"), state.get("step")
    if isinstance(mean, Tensor) and isinstance(square, Tensor) and steps is not None:
        beta1, beta2 = group.get("betas", (0.9, 0.999))
        done = float(steps)
        if done < 1 or not mean.is_floating_point() or mean.shape != square.shape:
            return None
        root = (square / (1 - beta2**done)).sqrt_().add_(group.get("eps", 1e-8))
        return (mean / (1 - beta1**done)).div_(root)
    momentum = state.get("momentum_buffer")
    return momentum if isinstance(momentum, Tensor) else None


def _norms(tensors: list[Tensor]) -> Tensor:
    """The norm of each tensor, in float32."""
    norms = [torch.linalg.vector_norm(t, dtype=torch.float32) for t in tensors]
    return torch.stack([norm.to(tensors[0].device) for norm in norms])


def _dense(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad
