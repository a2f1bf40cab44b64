"""The linear map of every layer, by the fastest single-precision kernel that this CPU has.

PyTorch's CPU build calls MKL for fp32 products, and MKL keeps its AVX-512 kernels for Intel's own
processors. oneDNN, which PyTorch also ships, has no such rule: on an AMD Zen 5 core it ran the
products of width 64-256 at 235-270 GFLOP/s against 115-120 (`benchmarks/speed/step.py`). Both
accumulate in fp32. For small layers the cost of a Python autograd function outweighs the gain.

Shapes: N rows (all leading axes), I inputs, O outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ONEDNN_MIN_FEATURES, ONEDNN_MIN_WEIGHTS = 32, 4096
"""Least inputs and outputs, and least I x O, for which oneDNN is used: measured break-even."""


def _has_onednn() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


HAS_ONEDNN = _has_onednn()
"""Whether this process can use oneDNN's fp32 products; fixed at import, so a run never switches."""


def linear(x: Tensor, weight_OI: Tensor) -> Tensor:
    """Returns x @ weight.T, differentiable in both.

    x has shape (..., I); the result (..., O). Same value as `torch.nn.functional.linear` up to the
    order of fp32 sums.
    """
    if _onednn_serves(x, weight_OI):
        return _OneDnnLinear.apply(x, weight_OI)  # type: ignore[return-value]
    return F.linear(x, weight_OI)


def _onednn_serves(x: Tensor, weight_OI: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and weight_OI.numel() >= ONEDNN_MIN_WEIGHTS
        and x.numel() > 0
        and min(weight_OI.shape) >= ONEDNN_MIN_FEATURES
        and x.dtype == weight_OI.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _product(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x_NI, weight_OI, None, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _product(x, weight_OI)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        (dy,) = grads
        # oneDNN's product has no gradient of its own: under create_graph, ours goes around it.
        product = _OneDnnLinear.apply if torch.is_grad_enabled() else _product
        dx = product(dy, weight_OI.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        dy_NO, x_NI = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        # Its rows are inputs: with few of them MKL is faster (32: 81 against 90 GFLOP/s).
        wide = x_NI.shape[1] >= 64
        return dx, product(dy_NO.t(), x_NI.t()) if wide else dy_NO.t() @ x_NI
