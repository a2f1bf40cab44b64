"""Products of quantized operands, whose gradients pass straight through the rounding.

The straight-through estimator (Bengio et al. 2013) puts dL/dx = dL/dx_q and dL/dW = dL/dW_q. Each
rule is one autograd function: the usual x + (q - x).detach() isn't on the grid (in bf16 it is off
by up to 0.8 % of the scale), and it keeps operands that nobody needs.

Operands hold levels, integers where the format has them. Integers up to 256 are exact in bf16, so
the product's sums are exact in int32, and in fp32 up to 2^24; scales are applied after it.

Shapes: N rows, I inputs, O outputs; B images, C channels, Y x X pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.models.blocks.matmul import linear

FP16_ROOM = 2.0**-15
"""Factor on the levels in fp16, exact, undone after: 127 x 1024 of one sign would overflow."""

DW_ONEDNN_MIN_INPUTS = 64
"""Fewest inputs for which oneDNN computes dW, as in `models.blocks.matmul`."""


def _has_integer_product() -> bool:
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return supported is not None and bool(supported())


HAS_INTEGER_PRODUCT = _has_integer_product()
"""Whether this CPU multiplies int8: with AVX512-VNNI 4 times as fast as fp32 at width 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """The two factors of a product as the forward pass takes them."""

    left: Tensor
    """Levels of x in fp32, or x itself; shape of x."""
    left_scale: Tensor | None
    """What the levels of x are multiplied by; broadcasts against x and the result."""
    left_storage: torch.dtype
    """What the backward pass keeps left in: for levels a dtype of one byte that holds them."""
    right: Tensor
    """Levels of the weight in any dtype, or its value; shape of the weight."""
    right_scale: Tensor | None
    """What the product is multiplied by for the weight's levels; broadcasts against it."""
    right_value: Tensor
    """The weight on its grid in fp32: levels x scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a convolution moves over its input."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class _Substitute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def substitute(x: Tensor, value: Tensor) -> Tensor:
    """Returns value, bit for bit; its gradient goes to x unchanged."""
    return _Substitute.apply(x, value)  # type: ignore[return-value]


def straight_linear(x_NI: Tensor, weight_OI: Tensor, operands: Operands) -> Tensor:
    """Returns left @ right.T times the scales, (N, O), in the dtype that `linear` would use."""
    dtype = compute_dtype(x_NI)
    return _StraightLinear.apply(x_NI, weight_OI, operands, dtype)  # type: ignore[return-value]


def straight_conv2d(
    x_BCYX: Tensor, weight: Tensor, operands: Operands, geometry: Geometry
) -> Tensor:
    """Returns the convolution of left with right times the scales, as `F.conv2d` shapes it."""
    dtype = compute_dtype(x_BCYX)
    return _StraightConv2d.apply(x_BCYX, weight, operands, geometry, dtype)  # type: ignore[return-value]


def compute_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype of a matrix product with x here: autocast's, or else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _StraightLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NI: Tensor, weight_OI: Tensor, operands: Operands, dtype: torch.dtype
    ) -> Tensor:
        left, right = operands.left.to(operands.left_storage), operands.right
        if _integer_product_serves(left, right):
            sums_NO = torch.ops.aten._int_mm(left, right.t()).float()
            y_NO = _scale(sums_NO, operands.left_scale, operands.right_scale).to(dtype)
        else:
            left_NI, right_OI, left_scale = _factors(operands, dtype)
            y_NO = _scale(linear(left_NI, right_OI), left_scale, operands.right_scale)
        ctx.save_for_backward(left, operands.left_scale, operands.right_value)
        return y_NO

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        left, left_scale, value_OI = ctx.saved_tensors
        (dy_NO,) = grads
        dx_NI = dw_OI = None
        if ctx.needs_input_grad[0]:
            dx_NI = linear(dy_NO, value_OI.to(dy_NO.dtype).t())
        if ctx.needs_input_grad[1]:
            x_NI = _dequantized(left, left_scale, dy_NO.dtype)
            wide = x_NI.shape[1] >= DW_ONEDNN_MIN_INPUTS
            dw_OI = linear(dy_NO.t(), x_NI.t()) if wide else dy_NO.t() @ x_NI
        return dx_NI, dw_OI, None, None


class _StraightConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BCYX: Tensor,
        weight: Tensor,
        operands: Operands,
        geometry: Geometry,
        dtype: torch.dtype,
    ) -> Tensor:
        left, right, left_scale = _factors(operands, dtype)
        g = geometry
        y = F.conv2d(left, right, None, g.stride, g.padding, g.dilation, g.groups)
        kept = operands.left.to(operands.left_storage)
        ctx.save_for_backward(kept, operands.left_scale, operands.right_value)
        ctx.geometry = geometry
        return _scale(y, left_scale, operands.right_scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        left, left_scale, value = ctx.saved_tensors
        (dy,) = grads
        g: Geometry = ctx.geometry
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy,
            _dequantized(left, left_scale, dy.dtype),
            value.to(dy.dtype),
            None,
            g.stride,
            g.padding,
            g.dilation,
            False,
            [0, 0],
            g.groups,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )
        return dx, dw, None, None, None


def _integer_product_serves(left: Tensor, right: Tensor) -> bool:
    return (
        HAS_INTEGER_PRODUCT
        and left.dtype == right.dtype == torch.int8
        and left.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def _factors(operands: Operands, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns left, right and the scale of left, with room for the product in fp16."""
    left, right, scale = operands.left.to(dtype), operands.right.to(dtype), operands.left_scale
    if scale is not None and dtype == torch.float16:
        return left * FP16_ROOM, right, scale / FP16_ROOM
    return left, right, scale


def _scale(y: Tensor, left_scale: Tensor | None, right_scale: Tensor | None) -> Tensor:
    """Multiplies y in place by both scales; returns it."""
    if left_scale is not None and right_scale is not None and right_scale.ndim == 0:
        return y.mul_(left_scale * right_scale)
    for scale in (left_scale, right_scale):
        if scale is not None:
            y.mul_(scale)
    return y


def _dequantized(left: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    return left.to(dtype) if scale is None else left.float().mul_(scale).to(dtype)
