"""Linear layers, norms, MLPs and taps. Shapes: N rows, D width."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.models.blocks.initial import truncated_normal_
from foretune.models.blocks.matmul import linear

NORM_EPSILON = 1e-6
"""Flax's default, which source A kept (Wortsman et al. 2023, section 2.1)."""


class Tap(nn.Module):
    """An identity that names tensors, so that a probe can measure them.

    kind says what they are: `attention` (q and k of shape (B, H, T, K), as they enter the dot
    product, and maybe the scaled and masked logits, of any shape (..., T, T)), `block_output` (one
    tensor (..., D)) or `logits` (one tensor (..., V)). layer counts from 0 (-1: not in a layer).
    For attention, scale multiplies the dot product and causal says whether later positions are
    masked. A probe sets `watch`; a plain attribute, since putting a forward hook on and off costs
    more than most of the statistics.
    """

    def __init__(self, kind: str, *, layer: int = -1, scale: float = 1.0, causal: bool = True):
        super().__init__()
        self.kind, self.layer, self.scale, self.causal = kind, layer, scale, causal
        self.watch: Callable[[Tap, tuple[Tensor, ...]], None] | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.watch is not None:
            self.watch(self, tensors)
        return tensors


class Linear(nn.Module):
    """x @ weight.T without bias, truncated-normal start of standard deviation 1/sqrt(inputs)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        truncated_normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class LayerNorm(nn.Module):
    """LayerNorm over the last axis with a gain and no bias."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, NORM_EPSILON)


class RMSNorm(nn.Module):
    """x / RMS(x) over the last axis with a gain (Zhang and Sennrich 2019)."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPSILON)


NORMS = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
"""Norms of the residual stream by name."""


class MLP(nn.Module):
    """GELU MLP of hidden width 4 D."""

    def __init__(self, width: int, linear: type[Linear]):
        super().__init__()
        self.mlp_in = linear(width, 4 * width)
        self.mlp_out = linear(4 * width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.mlp_out(F.gelu(self.mlp_in(x_ND)))


class SwiGLU(nn.Module):
    """Gated MLP of hidden width 3 D: out(silu(gate(x)) * in(x)) (Shazeer 2020)."""

    def __init__(self, width: int, linear: type[Linear]):
        super().__init__()
        self.mlp_gate = linear(width, 3 * width)
        self.mlp_in = linear(width, 3 * width)
        self.mlp_out = linear(3 * width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.mlp_out(F.silu(self.mlp_gate(x_ND)) * self.mlp_in(x_ND))


def scale_linears(module: nn.Module, gain: float) -> None:
    """Multiplies the weights of every `Linear` in a module by a factor."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, Linear):
                layer.weight.mul_(gain)


MLPS = {"gelu": MLP, "swiglu": SwiGLU}
"""MLPs of a block by name."""
