"""Attention, MLP, norms and taps of a pre-norm transformer block.

Mechanisms that act inside the network are typed arguments here (`qk_norm`). Shapes: B sequences,
T positions, D width, H heads, K head dimension, F width of the MLP (4 D).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.matmul import linear
from models.parametrize import truncated_normal_

NORM_EPSILON = 1e-6
"""Flax's default, which source A kept (Wortsman et al. 2023, section 2.1)."""


class Tap(nn.Module):
    """An identity that names tensors, so that a probe can measure them.

    kind says what they are: `attention` (q and k of shape (B, H, T, K), as they enter the dot
    product), `block_output` (one tensor (B, T, D)) or `logits` (one tensor (..., V)). layer counts
    from 0 (-1: not in a layer). For attention, scale multiplies the dot product and causal says
    whether later positions are masked.
    """

    def __init__(self, kind: str, *, layer: int = -1, scale: float = 1.0, causal: bool = True):
        super().__init__()
        self.kind, self.layer, self.scale, self.causal = kind, layer, scale, causal

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
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


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021): turns pairs (2i, 2i+1) by t / 10000^(2i/K).

    Takes q, k and v stacked, so that one product serves all of them: v is turned by nothing (the
    factor 1 is exact), which is cheaper than taking the stack apart and putting it together. The
    table is written out for every head, since a product that broadcasts costs 3-7 times as much.
    """

    def __init__(self, heads: int, head_dim: int, max_positions: int):
        super().__init__()
        frequency = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
        angle_TP = torch.outer(torch.arange(max_positions).float(), frequency)
        turn_TP = torch.polar(torch.ones_like(angle_TP), angle_TP)
        turn_T3P = torch.stack((turn_TP, turn_TP, torch.ones_like(turn_TP)), 1)
        turn_T3HP = turn_T3P.unsqueeze(2).repeat(1, 1, heads, 1)
        self.register_buffer("turn_T3HP", turn_T3HP, persistent=False)
        self.max_positions = max_positions

    def forward(self, qkv_BT3HK: Tensor) -> Tensor:
        turn_T3HP: Tensor = self.turn_T3HP  # type: ignore[assignment]
        positions = qkv_BT3HK.shape[1]
        if positions < self.max_positions:
            turn_T3HP = turn_T3HP[:positions]
        pairs_shape = (*qkv_BT3HK.shape[:-1], -1, 2)
        if qkv_BT3HK.dtype == torch.float32 and not torch.compiler.is_compiling():
            pairs = torch.view_as_complex(qkv_BT3HK.view(pairs_shape))
            return torch.view_as_real(pairs * turn_T3HP).view(qkv_BT3HK.shape)
        even, odd = qkv_BT3HK.float().view(pairs_shape).unbind(-1)
        cos, sin = turn_T3HP.real, turn_T3HP.imag
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
        return turned.view(qkv_BT3HK.shape).to(qkv_BT3HK.dtype)


class Attention(nn.Module):
    """Causal multi-head self-attention with rotary positions; optional qk-layernorm.

    qk_norm puts a LayerNorm on each head's q and k, before the rotation, its gains shared across
    heads: logits = LN(q) . LN(k) / sqrt(K) (Dehghani et al. 2023; source A, section 3.1.1).
    """

    def __init__(self, width: int, rotary: Rotary, *, head_dim: int, qk_norm: bool, layer: int):
        super().__init__()
        self.heads, self.head_dim = width // head_dim, head_dim
        self.qkv = Linear(width, 3 * width)
        self.attention_out = Linear(width, width)
        self.q_norm = LayerNorm(head_dim) if qk_norm else None
        self.k_norm = LayerNorm(head_dim) if qk_norm else None
        self.rotary = rotary
        self.tap = Tap("attention", layer=layer, scale=head_dim**-0.5, causal=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, positions, width = x_BTD.shape
        qkv_BT3HK = self.qkv(x_BTD).view(batch, positions, 3, self.heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k, v = qkv_BT3HK.unbind(2)
            qkv_BT3HK = torch.stack((self.q_norm(q), self.k_norm(k), v), 2)
        q_BHTK, k_BHTK, v_BHTK = self.rotary(qkv_BT3HK).transpose(1, 3).unbind(2)
        q_BHTK, k_BHTK = self.tap(q_BHTK, k_BHTK)
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True)
        return self.attention_out(y_BHTK.transpose(1, 2).reshape(batch, positions, width))


class MLP(nn.Module):
    """GELU MLP of hidden width 4 D."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp_in = Linear(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.mlp_out(F.gelu(self.mlp_in(x_BTD)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, rotary: Rotary, *, head_dim: int, qk_norm: bool, layer: int):
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = Attention(width, rotary, head_dim=head_dim, qk_norm=qk_norm, layer=layer)
        self.mlp_norm = LayerNorm(width)
        self.mlp = MLP(width)
        self.tap = Tap("block_output", layer=layer)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        (x_BTD,) = self.tap(x_BTD)
        return x_BTD
