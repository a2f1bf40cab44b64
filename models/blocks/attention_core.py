"""Causal or full softmax attention with rotary positions, by the faster of two ways.

PyTorch's fused kernel never holds the T x T probabilities, which pays off for long contexts and on
a GPU. On a CPU, at the short contexts of small proxies, holding them is faster: five batched
products in one autograd function took 0.75-0.85 of the fused kernel's time at T = 64 (Zen 5, one
thread; `benchmarks/speed/step.py` times the whole step).

Shapes: B sequences, T positions, H heads, K head dimension, P = K / 2 pairs, G = B H.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PROBABILITIES = 2**20
"""Most probabilities (B H T T) that are held, 4 MiB: measured break-even."""

Watch = Callable[..., object]
"""Sees q and k, each (B, H, T, K), as they enter the dot product, and, where they are held, the
scaled and masked logits (G, T, T), which it must not keep: they are overwritten."""


def turn_table(heads: int, head_dim: int, max_positions: int) -> Tensor:
    """Returns e^(i t / 10000^(2p/K)) for q and k and 1 for v, complex (T, 3, H, P).

    v is turned by nothing (the factor 1 is exact), which is cheaper than taking the stack of q, k
    and v apart and putting it together. The table is written out for every head, since a product
    that broadcasts costs 3-7 times as much.
    """
    frequency_P = 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angle_TP = torch.outer(torch.arange(max_positions).float(), frequency_P)
    turn_TP = torch.polar(torch.ones_like(angle_TP), angle_TP)
    turn_T3P = torch.stack((turn_TP, turn_TP, torch.ones_like(turn_TP)), 1)
    return turn_T3P.unsqueeze(2).repeat(1, 1, heads, 1)


def attend(
    qkv_BT3HK: Tensor, turn_T3HP: Tensor | None, *, causal: bool, scale: float, watch: Watch
) -> Tensor:
    """Returns softmax(scale q k^T) v of every head, side by side: shape (B, T, H K).

    Rotary positions (Su et al. 2021) turn the pairs (2p, 2p+1) of q and k by the table's first T
    rows; without a table nothing is turned.
    """
    if turn_T3HP is not None:
        turn_T3HP = turn_T3HP[: qkv_BT3HK.shape[1]]
    if _explicit_serves(qkv_BT3HK):
        return _Explicit.apply(qkv_BT3HK, turn_T3HP, causal, scale, watch)  # type: ignore[return-value]
    if turn_T3HP is not None:
        qkv_BT3HK = turn(qkv_BT3HK, turn_T3HP)
    q_BHTK, k_BHTK, v_BHTK = qkv_BT3HK.transpose(1, 3).unbind(2)
    watch(q_BHTK, k_BHTK)
    y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=causal, scale=scale)
    return y_BHTK.transpose(1, 2).flatten(2)


def turn(qkv_BT3HK: Tensor, turn_T3HP: Tensor) -> Tensor:
    """Returns qkv with every pair turned by the table."""
    pairs_shape = (*qkv_BT3HK.shape[:-1], -1, 2)
    if qkv_BT3HK.dtype == torch.float32 and not torch.compiler.is_compiling():
        pairs = torch.view_as_complex(qkv_BT3HK.view(pairs_shape))
        return torch.view_as_real(pairs * turn_T3HP).view(qkv_BT3HK.shape)
    even, odd = qkv_BT3HK.float().view(pairs_shape).unbind(-1)
    cos, sin = turn_T3HP.real, turn_T3HP.imag
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.view(qkv_BT3HK.shape).to(qkv_BT3HK.dtype)


def _explicit_serves(qkv_BT3HK: Tensor) -> bool:
    batch, positions, _, heads, _ = qkv_BT3HK.shape
    return (
        qkv_BT3HK.dtype == torch.float32
        and qkv_BT3HK.device.type == "cpu"
        and batch * heads * positions**2 <= MAX_PROBABILITIES
        and not torch.compiler.is_compiling()
    )


@lru_cache(maxsize=8)
def causal_mask(positions: int) -> Tensor:
    """Returns 0 where a query may see a key and -inf where it is later; (T, T) on the CPU."""
    return torch.zeros(positions, positions).masked_fill_(
        torch.ones(positions, positions).triu(1).bool(), -torch.inf
    )


class _Explicit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_BT3HK: Tensor,
        turn_T3HP: Tensor | None,
        causal: bool,
        scale: float,
        watch: Watch,
    ) -> Tensor:
        batch, positions, _, heads, head_dim = qkv_BT3HK.shape
        if turn_T3HP is not None:
            qkv_BT3HK = turn(qkv_BT3HK, turn_T3HP)
        qkv_3BHTK = qkv_BT3HK.permute(2, 0, 3, 1, 4)
        q, k, v = qkv_3BHTK.reshape(3, -1, positions, head_dim).unbind()
        if causal:
            p_GTT = torch.baddbmm(causal_mask(positions), q, k.transpose(1, 2), alpha=scale)
        else:
            p_GTT = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        watch(qkv_3BHTK[0], qkv_3BHTK[1], p_GTT)
        torch.softmax(p_GTT, -1, out=p_GTT)
        y_GTK = torch.bmm(p_GTT, v)
        ctx.save_for_backward(q, k, v, p_GTT, turn_T3HP)
        ctx.scale, ctx.heads = scale, heads
        return y_GTK.view(batch, heads, positions, head_dim).transpose(1, 2).flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("attention has no second derivative, as torch's fused one has none")
        q, k, v, p_GTT, turn_T3HP = ctx.saved_tensors
        _, positions, head_dim = q.shape
        shape_BTHK = (-1, positions, ctx.heads, head_dim)
        dy_GTK = grads[0].reshape(shape_BTHK).transpose(1, 2).reshape(q.shape)
        dq, dk, dv = dqkv_3GTK = torch.empty(3, *q.shape)
        torch.bmm(p_GTT.transpose(1, 2), dy_GTK, out=dv)
        dp_GTT = torch.bmm(dy_GTK, v.transpose(1, 2))
        ds_GTT = torch.ops.aten._softmax_backward_data(dp_GTT, p_GTT, -1, torch.float32)
        torch.baddbmm(dq, ds_GTT, k, beta=0, alpha=ctx.scale, out=dq)
        torch.baddbmm(dk, ds_GTT.transpose(1, 2), q, beta=0, alpha=ctx.scale, out=dk)
        dqkv_3BHTK = dqkv_3GTK.view(3, -1, ctx.heads, positions, head_dim)
        dqkv_BT3HK = dqkv_3BHTK.permute(1, 3, 0, 2, 4).contiguous()
        if turn_T3HP is not None:
            dqkv_BT3HK = turn(dqkv_BT3HK, turn_T3HP.conj())
        return dqkv_BT3HK, None, None, None, None
