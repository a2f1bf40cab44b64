"""Bytes that a forward and backward pass holds beside weights, gradients and moments.

Transformers by a formula, other models by what autograd keeps of a pass over shapes alone. Both are
estimates: measured peaks lie within a tenth of them (float32) or an eighth (bfloat16). What a
kernel takes for itself isn't in them. It shows on a CPU without bfloat16 convolutions (AVX-512 or
AMX), where PyTorch unfolds a batch to k^2 times its size: 1.4 times the estimate for `cnn-tiny`.

B samples, T positions, N = B T rows, D width, H heads, V outputs.
"""

from typing import Any

import torch
from torch import Tensor

from foretune.models.blocks.attention_core import MAX_PROBABILITIES
from foretune.models.nets.ladder import count
from foretune.models.nets.transformer import TransformerConfig
from foretune.models.nets.vit import ViTConfig

Shape = tuple[int, ...]
"""(B, T) tokens or (B, C, H, W) pixels."""

HALF_SHARE = 0.6
"""Of the float32 bytes in bfloat16, for models without a formula (norms and logits stay wide)."""


def activation_bytes(config: Any, shape: Shape, precision: str = "float32") -> int:
    """Returns the peak of one pass over a batch of this shape, in bytes.

    A model of one's own must run on the meta device; RuntimeError where it doesn't.
    """
    if isinstance(config, TransformerConfig | ViTConfig):
        return _transformer_bytes(config, shape, half=precision == "bfloat16")
    share = HALF_SHARE if precision == "bfloat16" else 1.0
    return round(share * _traced_bytes(config, shape))


def _transformer_bytes(config: TransformerConfig | ViTConfig, shape: Shape, *, half: bool) -> int:
    """4 N L (16 D + H T where logits are held) + 4 N 2 D + 16 N V, by what waits for its gradient.

    A block keeps the inputs of both norms (2 D), of q k v and of the MLP (2 D), q, k and v (3 D),
    what attention gives (D), and the MLP's hidden layer before and after its GELU (8 D; gated, 12
    D); the loss keeps logits, their logarithms and both gradients. Norms of q and k keep q, k and v
    again. In bfloat16 the inputs of norms and the losses stay in float32, and the weights are there
    a second time.
    """
    vit = isinstance(config, ViTConfig)
    positions = config.patches if vit else shape[1]
    rows, width = shape[0] * positions, config.width
    hidden = 12 if not vit and config.mlp == "swiglu" else 8
    normed = bool(config.qk_norm or config.v_norm or config.kappa)
    logits = _held_logits(config, shape[0], positions, half) * config.heads * positions
    predictions = shape[0] * config.classes if vit else rows * config.vocab_size
    if half:
        block = width * (8 + 2 * (7 + hidden) + 12 * normed) + 4 * logits
        weights = 2 * count(config).n_params_total
        return rows * (config.depth * block + 8 * width) + 14 * predictions + weights
    block = 4 * (width * (8 + hidden + 3 * normed) + logits)
    return rows * (config.depth * block + 8 * width) + 16 * predictions


def _held_logits(
    config: TransformerConfig | ViTConfig, samples: int, positions: int, half: bool
) -> int:
    """How many tensors of T x T numbers a head keeps."""
    if config.attention != "softmax" or config.attention_softcap:
        return 2
    small = samples * config.heads * positions**2 <= MAX_PROBABILITIES
    return int(small and not half)  # As `attend` chooses on a CPU; a GPU never holds them.


def _traced_bytes(config: Any, shape: Shape) -> int:
    """What autograd saves of a forward pass on the meta device: no memory, no numbers."""
    with torch.device("meta"):
        model = config.build()
        inputs = torch.empty(shape) if len(shape) > 2 else torch.zeros(shape, dtype=torch.long)
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Any] = {}  # The storage itself: a freed one's address is given out again.

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        logits: Tensor = model(inputs)
    # The loss keeps logits, their logarithms and both gradients.
    return sum(storage.nbytes() for storage in kept.values()) + 4 * 4 * logits.numel()
