"""One dial: size -> config, with parameter, FLOP and byte counts.

N, the model scale of every plot, leaves out embedding and head (Kaplan et al. 2020; source A).
"""

from dataclasses import dataclass, replace

from torch import nn

from models.transformer import TransformerConfig

BYTES_PER_PARAMETER = 16
"""fp32 weight, gradient and AdamW's two moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one model costs."""

    n_params: int
    """N: parameters without embedding and head."""
    n_params_total: int
    """All parameters."""
    flops_per_token: float
    """Floating-point operations of one training step per token: forward plus twice that back."""
    state_bytes: int
    """Bytes of weights, gradients and AdamW moments in fp32 (activations not included)."""


def at_size(config: TransformerConfig, size: int) -> TransformerConfig:
    """Returns the config at a rung of the width ladder: width = size, depth and head_dim kept.

    Raises ValueError where the size is no multiple of head_dim.
    """
    return replace(config, width=size)


def size_of(config: object) -> int:
    """Returns the rung a config stands on: its `width`, or 0 for a model that has no such dial."""
    return int(getattr(config, "width", 0))


def count(config: TransformerConfig) -> Counts:
    """Returns the counts of a decoder LM, from the formula alone (nothing is built).

    N = 12 D^2 L + (2 L + 1) D, and 2 K L more with qk-layernorm. FLOPs of a forward pass per token:
    2 for each weight of a matrix product (N without gains, and the head), and 4 T D a layer for the
    two attention products over the full context T; a training step is three forward passes.
    """
    width, depth = config.width, config.depth
    matrices = 12 * width**2 * depth
    gains = (2 * depth + 1) * width + (2 * config.head_dim * depth if config.qk_norm else 0)
    head = width * config.vocab_size
    attention = 4 * config.max_positions * width * depth
    total = matrices + gains + 2 * head
    return Counts(
        n_params=matrices + gains,
        n_params_total=total,
        flops_per_token=3.0 * (2 * (matrices + head) + attention),
        state_bytes=BYTES_PER_PARAMETER * total,
    )


def count_module(module: nn.Module) -> Counts:
    """Returns the counts of any module, by convention: embeddings are `nn.Embedding`, the head is
    the child named `head`; FLOPs are 6 per counted parameter and token, head included.
    """
    total = sum(p.numel() for p in module.parameters())
    embedding = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Embedding))
    head_module = getattr(module, "head", None)
    is_module = isinstance(head_module, nn.Module)
    head = sum(p.numel() for p in head_module.parameters()) if is_module else 0
    n_params = total - embedding - head
    return Counts(
        n_params=n_params,
        n_params_total=total,
        flops_per_token=6.0 * (n_params + head),
        state_bytes=BYTES_PER_PARAMETER * total,
    )
