"""Attention that the fast ways of `models.blocks.attention_core` don't serve: written out, for
autograd.

It holds all T x T logits. Shapes: B sequences, T positions, H heads, K head dimension, G = B H.
"""

import torch
from torch import Tensor

from foretune.models.blocks.attention_core import Watch, turn


def attend_explicit(
    qkv_BT3HK: Tensor,
    turn_T3HP: Tensor | None,
    *,
    causal: bool,
    scale: float,
    watch: Watch,
    weights: str,
    softcap: float,
) -> Tensor:
    """Returns the weighted sums of v of every head, side by side: shape (B, T, H K).

    As `models.blocks.attention_core.attend`, where softcap bounds the logits (0 doesn't) and
    weights is softmax or relu2: max(logit, 0)^2 / sqrt(T). The watch always sees the logits:
    scaled, capped and masked.
    """
    batch, positions = qkv_BT3HK.shape[:2]
    if turn_T3HP is not None:
        qkv_BT3HK = turn(qkv_BT3HK, turn_T3HP[:positions])
    q_BHTK, k_BHTK, v_BHTK = qkv_BT3HK.transpose(1, 3).unbind(2)
    # Not in bfloat16 under autocast: a logit of 100 would be right to 0.25.
    logits_BHTT = cap((q_BHTK @ k_BHTK.mT).float() * scale, softcap)
    if causal:
        future_TT = torch.ones(positions, positions, device=logits_BHTT.device).triu(1).bool()
        logits_BHTT = logits_BHTT.masked_fill(future_TT, -torch.inf)
    watch(q_BHTK, k_BHTK, logits_BHTT.flatten(0, 1))
    if weights == "softmax":
        p_BHTT = torch.softmax(logits_BHTT, -1)
    else:
        p_BHTT = torch.relu(logits_BHTT).square() * positions**-0.5
    y_BHTK = p_BHTT.to(v_BHTK.dtype) @ v_BHTK
    return y_BHTK.transpose(1, 2).reshape(batch, positions, -1)


def cap(x: Tensor, limit: float) -> Tensor:
    """Returns limit tanh(x / limit), which stays below the limit; x itself for a limit of 0."""
    return limit * torch.tanh(x / limit) if limit else x
