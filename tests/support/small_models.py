"""Models from a seed, plain or quantized, what they are given, and their weights in float64.

Shapes: B samples, T tokens, C channels, H x W pixels.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foretune.models import TransformerConfig
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.replace import quantize

torch.set_num_threads(1)


def built(config: Any, *, seed: int = 0) -> Any:
    """A model with fresh weights."""
    torch.manual_seed(seed)
    return config.build()


def with_gains(config: Any, *, seed: int = 0) -> Any:
    """A model whose gains are not 1 and biases not 0, so that one left out or misplaced shows."""
    model = built(config, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def quantized(config: Any, quantization: Quantization) -> Any:
    """A model that wasn't trained, in evaluation."""
    model = built(config)
    quantize(model, quantization)
    return model.eval()


def llama(width: int = 256, **options: Any) -> TransformerConfig:
    """The transformer that GGUF serves."""
    fields = {"width": width, "depth": 2, "head_dim": 16, "max_positions": 32}
    return TransformerConfig(**{**fields, "norm": "rmsnorm", "mlp": "swiglu", **options})


def samples(config: Any, *, count: int = 3, seed: int = 1) -> Tensor:
    """What the model takes: tokens (B, T) at all its positions, or images (B, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(config, TransformerConfig):
        shape = count, config.max_positions
        return torch.randint(config.vocab_size, shape, generator=generator)
    side = config.image_size
    return torch.randn(count, config.channels, side, side, generator=generator)


def in_float64(model: nn.Module) -> dict[str, Tensor]:
    """Weights by name, which gather gradients of their own."""
    return {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}


def gradients(
    model: nn.Module, weights: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each weight's name, its gradient, and that of the same weight in float64: both are there."""
    for name, parameter in model.named_parameters():
        got, expected = parameter.grad, weights[name].grad
        assert got is not None, name
        assert expected is not None, name
        yield name, got.double(), expected
