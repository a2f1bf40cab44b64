"""A module's parameters in one buffer and their gradients in another, each tensor a view into it.

An update, a norm or a clip is then one operation instead of one per tensor: 0.1 ms against 0.3 ms
of a 2 ms step at width 16.
"""

import torch
from torch import Tensor, nn

from foretune.models.quantization.layers import QuantizedEmbedding


def scale_each(
    parts: list[Tensor] | tuple[Tensor, ...], factor: float | tuple[Tensor, ...]
) -> None:
    """Multiplies each of several tensors by a number, or by the scalar of its own."""
    torch._foreach_mul_(parts, factor)  # pyright: ignore[reportPrivateImportUsage]


class FlatParameters:
    """A module's parameters and gradients as views into two buffers of shape (n_params_total,)."""

    def __init__(self, module: nn.Module):
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("model must have parameters that require a gradient, got none.")
        dtypes = {p.dtype for _, p in named}
        if dtypes != {torch.float32}:
            raise ValueError(
                f"model must hold float32 parameters, got {', '.join(map(str, dtypes))}; "
                f"set precision=bfloat16 for bfloat16 arithmetic."
            )
        self.names = [name for name, _ in named]
        self.sizes = [p.numel() for _, p in named]
        self.shapes = [tuple(p.shape) for _, p in named]
        self.embeddings = frozenset(_embeddings(module)) & frozenset(self.names)
        """Names of the parameters that are embeddings: of tokens, positions or patches."""
        device = named[0][1].device
        self.values = torch.empty(sum(self.sizes), device=device)
        """All weights, shape (n_params_total,)."""
        self.grads = torch.zeros_like(self.values)
        """All gradients, shape (n_params_total,)."""
        values, grads = self.views(self.values), self.views(self.grads)
        for (_, parameter), value, grad in zip(named, values, grads, strict=True):
            value = value.view_as(parameter)
            value.copy_(parameter.data)
            parameter.data = value
            parameter.grad = grad.view_as(parameter)

    def views(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Returns the parts of a flat tensor that belong to each parameter, in order of names."""
        return flat.split(self.sizes)

    def rms(self, flat: Tensor) -> Tensor:
        """Returns the root mean square of each parameter's part of a flat tensor, (n_tensors,)."""
        sizes = torch.tensor(self.sizes, device=flat.device)
        return self.norms(flat) * sizes**-0.5

    def norms(self, flat: Tensor) -> Tensor:
        """Returns the norm of each parameter's part of a flat tensor, shape (n_tensors,)."""
        return torch.stack(torch._foreach_norm(self.views(flat)))  # pyright: ignore[reportPrivateImportUsage]

    def first_broken(self) -> str:
        """Returns a clause that names the first weight or gradient that isn't finite."""
        for what, flat in (("weight", self.values), ("gradient of", self.grads)):
            for name, part in zip(self.names, self.views(flat), strict=True):
                if not bool(torch.isfinite(part).all()):
                    return f"; first not finite: {what} {name}"
        return ""


def _embeddings(module: nn.Module) -> list[str]:
    named = module.named_modules()
    tables = [n for n, m in named if isinstance(m, nn.Embedding | QuantizedEmbedding)]
    # Our models' tables of positions and maps of patches are known by their names.
    called = [n for n, _ in module.named_parameters() if "_embedding" in n]
    return [*(f"{name}.weight" for name in tables), *called]
