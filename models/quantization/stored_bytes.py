"""How many bytes the weights of a model take, stored in its number formats.

Trits at five a byte (1.6 bits), signs at one bit, integers at their bits; scales, and all that
isn't quantized, in fp32. `models.export.save` writes such files; this counts without writing.
"""

from functools import lru_cache

import torch

from foretune.models.blocks.buildable import Buildable
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import Format
from foretune.models.quantization.layers import quantized_layers
from foretune.models.quantization.replace import quantize

FP32_BYTES = 4


@lru_cache(maxsize=1024)
def weight_bytes(config: Buildable, quantization: Quantization) -> int:
    """Returns the bytes of all parameters of a model of this config in this quantization."""
    with torch.device("meta"):
        model = config.build()
    total = FP32_BYTES * sum(p.numel() for p in model.parameters())
    quantize(model, quantization)
    for layer in quantized_layers(model).values():
        form, shape = layer.grid.format, layer.weight.shape
        if form is not None:
            total -= FP32_BYTES * shape.numel()
            total += form.level_bytes(shape.numel()) + FP32_BYTES * _scales(form, shape)
    return total


def _scales(form: Format, shape: torch.Size) -> int:
    if form.granularity == "tensor":
        return 1
    groups = shape[1:].numel() // form.group_size if form.granularity == "group" else 1
    return shape[0] * groups
