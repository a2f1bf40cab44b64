"""Attention, MLP, norms and taps of a pre-norm transformer block.

Mechanisms that act inside the network are typed arguments here (`qk_norm`). Shapes: B sequences,
T positions, N = B T rows, D width, H heads, K head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attend import attend
from models.matmul import linear
from models.parametrize import truncated_normal_

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


class Attention(nn.Module):
    """Multi-head self-attention; optional qk-layernorm, optional rotary positions.

    qk_norm puts a LayerNorm on each head's q and k, before the rotation, its gains shared across
    heads: logits = LN(q) . LN(k) / sqrt(K) (Dehghani et al. 2023; source A, section 3.1.1).
    turn_T3HP is the table of `models.attend.turn_table`; None leaves positions to the input.
    """

    def __init__(
        self,
        width: int,
        turn_T3HP: Tensor | None,
        *,
        head_dim: int,
        qk_norm: bool,
        layer: int,
        causal: bool,
    ):
        super().__init__()
        self.heads, self.head_dim = width // head_dim, head_dim
        self.qkv = Linear(width, 3 * width)
        self.attention_out = Linear(width, width)
        self.q_norm = LayerNorm(head_dim) if qk_norm else None
        self.k_norm = LayerNorm(head_dim) if qk_norm else None
        self.register_buffer("turn_T3HP", turn_T3HP, persistent=False)
        self.tap = Tap("attention", layer=layer, scale=head_dim**-0.5, causal=causal)

    def forward(self, x_ND: Tensor, batch: int) -> Tensor:
        qkv_BT3HK = self.qkv(x_ND).view(batch, -1, 3, self.heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k, v = qkv_BT3HK.unbind(2)
            qkv_BT3HK = torch.stack((self.q_norm(q), self.k_norm(k), v), 2)
        turn_T3HP: Tensor | None = self.turn_T3HP  # type: ignore[assignment]
        y_BTD = attend(
            qkv_BT3HK, turn_T3HP, causal=self.tap.causal, scale=self.tap.scale, watch=self.tap
        )
        return self.attention_out(y_BTD.flatten(0, 1))


class MLP(nn.Module):
    """GELU MLP of hidden width 4 D."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp_in = Linear(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.mlp_out(F.gelu(self.mlp_in(x_ND)))


class SwiGLU(nn.Module):
    """Gated MLP of hidden width 3 D: out(silu(gate(x)) * in(x)) (Shazeer 2020)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp_gate = Linear(width, 3 * width)
        self.mlp_in = Linear(width, 3 * width)
        self.mlp_out = Linear(3 * width, width)

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


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    x is (N, D) with N = B T rows: every matrix product wants two axes, and folding once outside
    the blocks saves 3 % of a step at width 16.
    """

    def __init__(
        self,
        width: int,
        turn_T3HP: Tensor | None,
        *,
        head_dim: int,
        qk_norm: bool,
        layer: int,
        causal: bool = True,
        norm: str = "layernorm",
        mlp: str = "gelu",
    ):
        super().__init__()
        self.attention_norm = NORMS[norm](width)
        self.attention = Attention(
            width, turn_T3HP, head_dim=head_dim, qk_norm=qk_norm, layer=layer, causal=causal
        )
        self.mlp_norm = NORMS[norm](width)
        self.mlp = MLPS[mlp](width)
        self.tap = Tap("block_output", layer=layer)

    def forward(self, x_ND: Tensor, batch: int) -> Tensor:
        x_ND = x_ND + self.attention(self.attention_norm(x_ND), batch)
        x_ND = x_ND + self.mlp(self.mlp_norm(x_ND))
        (x_ND,) = self.tap(x_ND)
        return x_ND
