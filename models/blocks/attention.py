"""Self-attention of a block, with what may act on q, k and v.

Shapes: B sequences, T positions, N = B T rows, D width, H heads, K head dimension.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.models.blocks.attention_core import attend
from foretune.models.blocks.attention_variants import attend_explicit
from foretune.models.blocks.block_config import BlockConfig
from foretune.models.blocks.layers import LayerNorm, Linear, Tap
from foretune.models.blocks.sigma_reparam import SigmaLinear

FORCED_EPSILON = 1e-12


class WholeLayerNorm(LayerNorm):
    """LayerNorm over all heads of a (B, T, H, K) tensor together, with H K gains."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(-2)).view(x.shape)


class ForcedRMS(nn.Module):
    """sqrt(kappa) z / RMS(z) over the last axis; nothing is learned (source A, section 3.3).

    The epsilon is smaller than that of norms, so that the size is exact for small z, too.
    """

    def __init__(self, kappa: float):
        super().__init__()
        self.root = kappa**0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.root * F.rms_norm(x, x.shape[-1:], None, FORCED_EPSILON)


class Attention(nn.Module):
    """Multi-head self-attention; optional rotary positions.

    A qk-layernorm acts before the rotation: logits = scale LN(q) . LN(k) (Dehghani et al. 2023;
    source A, section 3.1.1). turn_T3HP is the table of `models.blocks.attention_core.turn_table`;
    None leaves positions to the input. The tap holds the scale in use.
    """

    def __init__(self, config: BlockConfig, turn_T3HP: Tensor | None, *, layer: int, causal: bool):
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        linear = SigmaLinear if config.sigma_reparam else Linear
        self.qkv = linear(config.width, 3 * config.width)
        self.attention_out = linear(config.width, config.width)
        self.q_norm, self.k_norm = _qk_norm(config), _qk_norm(config)
        self.v_norm = LayerNorm(config.head_dim) if config.v_norm else None
        self.has_norms = self.q_norm is not None or self.v_norm is not None
        self.register_buffer("turn_T3HP", turn_T3HP, persistent=False)
        self.tap = Tap("attention", layer=layer, causal=causal)
        self.set_scale(config.attention_scale)
        if config.zero_query:
            self.zero_query()
        self.attend: Callable[..., Tensor] = attend
        if config.attention != "softmax" or config.attention_softcap:
            self.attend = partial(
                attend_explicit, weights=config.attention, softcap=config.attention_softcap
            )

    def set_scale(self, name: str) -> None:
        """Sets the factor on q . k: sqrt for 1 / sqrt(K), linear for 1 / K."""
        self.tap.scale = 1 / self.head_dim if name == "linear" else self.head_dim**-0.5

    @torch.no_grad()
    def zero_query(self) -> None:
        """Sets the query rows of qkv to zero, in place."""
        self.qkv.weight[: self.heads * self.head_dim] = 0
        if isinstance(self.qkv, SigmaLinear):
            self.qkv.settle()

    def forward(self, x_ND: Tensor, batch: int) -> Tensor:
        qkv_BT3HK = self.qkv(x_ND).view(batch, -1, 3, self.heads, self.head_dim)
        if self.has_norms:
            qkv_BT3HK = self._normalised(qkv_BT3HK)
        turn_T3HP: Tensor | None = self.turn_T3HP  # type: ignore[assignment]
        y_BTD = self.attend(
            qkv_BT3HK, turn_T3HP, causal=self.tap.causal, scale=self.tap.scale, watch=self.tap
        )
        return self.attention_out(y_BTD.flatten(0, 1))

    def _normalised(self, qkv_BT3HK: Tensor) -> Tensor:
        norms = (self.q_norm, self.k_norm, self.v_norm)
        parts = zip(norms, qkv_BT3HK.unbind(2), strict=True)
        return torch.stack([part if norm is None else norm(part) for norm, part in parts], 2)


def _qk_norm(config: BlockConfig) -> nn.Module | None:
    """What acts on q, and another one on k."""
    if config.kappa:
        return ForcedRMS(config.kappa)
    if not config.qk_norm:
        return None
    if config.qk_norm_span == "width":
        return WholeLayerNorm(config.width)
    return LayerNorm(config.head_dim)
