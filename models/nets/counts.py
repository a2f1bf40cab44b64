"""What a model costs: parameters, floating-point operations, bytes of state.

N, the model scale of every plot, leaves out what turns data into the stream (embeddings of tokens,
patches and positions; the stem of a CNN) and the head (Kaplan et al. 2020; source A).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BYTES_PER_PARAMETER = 16
"""fp32 weight, gradient and AdamW's two moments."""
OUTSIDE_N = ("embedding", "patch_embedding", "position_embedding", "stem", "head")
"""Names of a model's own children and parameters that N leaves out, beside `nn.Embedding`s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one model costs."""

    n_params: int
    """N: parameters without embeddings (of tokens, patches, positions), stem and head."""
    n_params_total: int
    """All parameters."""
    flops_per_token: float
    """Floating-point operations of one training step per position of the loss: a token of a
    language model, an image of a vision model. Forward plus the way back: twice that, but for the
    layer that reads the pixels, whose input needs no gradient."""
    state_bytes: int
    """Bytes of weights, gradients and AdamW moments in fp32 (activations not included)."""


class ImageConfig(Protocol):
    """What `count_traced` needs of a config: the shape of an image, and the model."""

    @property
    def image_size(self) -> int: ...
    @property
    def channels(self) -> int: ...
    def build(self) -> nn.Module: ...


def count_module(module: nn.Module) -> Counts:
    """Returns the counts of any module: N by the names in `OUTSIDE_N`, and FLOPs as 6 for each
    parameter of N and head, which holds where every weight is used once per position of the loss
    (it is too low for convolutions; see `count_traced`).
    """
    n_params, total = _parameters(module)
    head_module = getattr(module, "head", None)
    is_module = isinstance(head_module, nn.Module)
    head = sum(p.numel() for p in head_module.parameters()) if is_module else 0
    return Counts(
        n_params=n_params,
        n_params_total=total,
        flops_per_token=6.0 * (n_params + head),
        state_bytes=BYTES_PER_PARAMETER * total,
    )


def count_traced(config: ImageConfig) -> Counts:
    """Returns the counts of a vision model whose FLOPs lie in convolutions and linear layers.

    One image passes through the model on the meta device: shapes alone, no memory, no numbers.
    """
    with torch.device("meta"):
        model = config.build().eval()
        image_BCHW = torch.empty(1, config.channels, config.image_size, config.image_size)
    flops: dict[nn.Module, int] = {}

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        weight: Any = module.weight
        flops[module] = 2 * output.numel() * weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(image_BCHW)
    n_params, total = _parameters(model)
    return Counts(
        n_params=n_params,
        n_params_total=total,
        flops_per_token=3.0 * sum(flops.values()) - flops[model.get_submodule("stem")],
        state_bytes=BYTES_PER_PARAMETER * total,
    )


def _parameters(module: nn.Module) -> tuple[int, int]:
    """N and all parameters; one that two modules share counts once, outside N if either is."""
    named = module.named_parameters(remove_duplicate=False)
    outside = {id(p) for name, p in named if name.split(".")[0] in OUTSIDE_N}
    outside |= {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    parameters = list(module.parameters())
    inside = (p.numel() for p in parameters if id(p) not in outside)
    return sum(inside), sum(p.numel() for p in parameters)
