"""Layers whose weights and inputs stand on a grid: Linear, Conv2d, Embedding.

They hold the very parameters of the layers they replace, under the same names, in full precision;
the grid is computed from those. `refresh` computes it once for all forward passes up to the next
one (micro-batches share it). Without a refresh every forward pass computes it anew: slower, never
wrong. What `refresh` computed is dropped as soon as the layer can tell that it is out of date:
after `train()`, `eval()`, `load_state_dict`, `.to(...)`, or a change of the parameter that counts
up its version. Some changes don't: those of a flat buffer behind the parameters, of `.data`, of
torch's fused optimizers. Who makes such changes and calls `refresh` calls it after each of them.

Shapes: N rows, I inputs, O outputs; B images, C channels, Y x X pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.models.blocks.layers import NORM_EPSILON, Linear
from foretune.models.blocks.matmul import linear
from foretune.models.quantization.formats import Format
from foretune.models.quantization.scales import dequantize, expand
from foretune.models.quantization.straight_through import (
    Geometry,
    Operands,
    compute_dtype,
    straight_conv2d,
    straight_linear,
    substitute,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRule:
    """What a layer does to its weight and its input."""

    weights: Format | None
    """Format of the weight; None leaves layer and input in full precision."""
    activations: Format | None = None
    """Format of the input: a `row` is a token of a Linear, an image of a Conv2d."""
    norm: bool = False
    """LayerNorm without parameters before the layer: over the inputs of a Linear, over the channels
    of each pixel of a Conv2d."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridWeight:
    """A weight on its grid."""

    levels: Tensor
    """In the format's storage dtype; shape of the weight."""
    scale: Tensor
    """fp32; `models.quantization.formats` has the shapes."""
    value: Tensor
    """W + strength (levels x scale - W) in fp32."""


class Grid:
    """The grid of one layer's weight: its strength, and what the last refresh computed."""

    __slots__ = ("_cached", "_seen", "format", "strength")

    def __init__(self, format: Format | None, strength: float):
        self.format, self.strength = format, strength
        self._cached: GridWeight | None = None
        self._seen: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        return Grid, (self.format, self.strength)

    @property
    def off(self) -> bool:
        """Whether the layer is the full-precision one, bit for bit."""
        return self.format is None or self.strength == 0

    def refresh(self, weight: Tensor, strength: float, training: bool) -> None:
        self.strength, self._cached = strength, None
        if not self.off:
            self._cached = self.compute(weight)
            self._seen = _identity(weight, training)

    def read(self, weight: Tensor, training: bool) -> GridWeight:
        """Returns the weight on its grid: the refreshed one where that still holds."""
        # A graph that torch.compile traces computes the grid inside it.
        if self._cached is None or torch.compiler.is_compiling():
            return self.compute(weight)
        if self._seen != _identity(weight, training):
            self._cached = None
            return self.compute(weight)
        return self._cached

    @torch.no_grad()
    def compute(self, weight: Tensor) -> GridWeight:
        assert self.format is not None, "a layer without a format has no grid"
        scale = self.format.scale_of(weight)
        levels = self.format.levels(weight, scale)
        value = dequantize(levels, scale)
        if self.strength != 1:
            value = torch.lerp(weight.detach().float(), value, self.strength)
        return GridWeight(levels=levels.to(self.format.storage), scale=scale, value=value)


def _identity(weight: Tensor, training: bool) -> tuple[object, ...]:
    version = None if weight.is_inference() else weight._version
    inference = torch.is_inference_mode_enabled()
    return weight.data_ptr(), weight.device, weight.dtype, version, training, inference


class QuantizedLinear(nn.Module):
    """y = x_q W_q^T + bias over the last axis; takes the place of a Linear without or with bias."""

    def __init__(self, layer: Linear | nn.Linear, rule: LayerRule, *, strength: float = 1.0):
        super().__init__()
        self.weight = layer.weight
        self.bias: nn.Parameter | None = layer.bias if isinstance(layer, nn.Linear) else None
        self.out_features, self.in_features = layer.weight.shape
        # At strength 0 it is that layer bit for bit, so with that layer's product.
        self.by_torch = isinstance(layer, nn.Linear)
        self.rule, self.grid = rule, Grid(rule.weights, strength)
        self.watched = False
        self.clipped: list[Tensor] = []
        """While watched, each forward pass appends the share of inputs at an end of their grid."""

    def forward(self, x: Tensor) -> Tensor:
        if self.rule.norm:
            x = F.layer_norm(x, (self.in_features,), eps=NORM_EPSILON)
        if self.grid.off:
            by_torch = self.by_torch
            return F.linear(x, self.weight, self.bias) if by_torch else linear(x, self.weight)
        x_NI = x if x.ndim == 2 else x.reshape(-1, self.in_features)
        y_NO = straight_linear(x_NI, self.weight, _operands(x_NI, self))
        if self.bias is not None:
            y_NO = y_NO + self.bias.to(y_NO.dtype)
        return y_NO if x.ndim == 2 else y_NO.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {_described(self)}"


class QuantizedConv2d(nn.Module):
    """A convolution of quantized images (B, C, Y, X) or one image (C, Y, X); any nn.Conv2d."""

    def __init__(self, layer: nn.Conv2d, rule: LayerRule, *, strength: float = 1.0):
        super().__init__()
        self.weight = layer.weight
        self.bias: Tensor | None = layer.bias
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size = _pair(layer.kernel_size)
        self.stride, self.dilation = _pair(layer.stride), _pair(layer.dilation)
        self.padding: str | tuple[int, int] = (
            layer.padding if isinstance(layer.padding, str) else _pair(layer.padding)
        )
        self.padding_mode = layer.padding_mode
        self.groups = layer.groups
        # Left, right, top, bottom, as F.pad takes them.
        self.margins: list[int] = list(layer._reversed_padding_repeated_twice)
        self.rule, self.grid = rule, Grid(rule.weights, strength)
        self.watched = False
        self.clipped: list[Tensor] = []
        """While watched, each forward pass appends the share of inputs at an end of their grid."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return self(x.unsqueeze(0)).squeeze(0)
        if self.rule.norm:
            x = _norm_over_channels(x)
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self.margins, mode=self.padding_mode), (0, 0)
        if self.grid.off:
            return F.conv2d(
                x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
            )
        if isinstance(padding, str):
            x, padding = F.pad(x, self.margins), (0, 0)
        geometry = Geometry(
            stride=self.stride, padding=padding, dilation=self.dilation, groups=self.groups
        )
        y = straight_conv2d(x, self.weight, _operands(x, self), geometry)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, {_described(self)}"
        )


class QuantizedEmbedding(nn.Module):
    """Rows of a quantized table; the indices have nothing to quantize."""

    def __init__(self, layer: nn.Embedding, rule: LayerRule, *, strength: float = 1.0):
        super().__init__()
        self.weight = layer.weight
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.padding_idx = layer.padding_idx
        self.scale_grad_by_freq = layer.scale_grad_by_freq
        self.rule, self.grid = rule, Grid(rule.weights, strength)

    def forward(self, tokens: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if not self.grid.off:
            value = self.grid.read(weight, self.training).value
            weight = substitute(weight, value.to(weight.dtype))
        return F.embedding(
            tokens, weight, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq
        )

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, {_described(self)}"


QuantizedLayer = QuantizedLinear | QuantizedConv2d | QuantizedEmbedding


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """Returns the quantized layers of a model by dotted name, controls (norm only) included."""
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLayer)}


def refresh(model: nn.Module, strength: float) -> None:
    """Sets every layer's strength and computes its grid from the weights as they are now.

    Holds until the next call: call it after each update of the weights, and after `train()` and
    `eval()`, which drop what it computed. At strength 0 nothing is computed. Raises ValueError for
    a model without quantized layers.
    """
    layers = [m for m in model.modules() if isinstance(m, QuantizedLayer)]
    if not layers:
        raise ValueError("model must hold quantized layers, got none; call quantize first.")
    for layer in layers:
        layer.grid.refresh(layer.weight, strength, layer.training)


@torch.no_grad()
def _operands(x: Tensor, layer: QuantizedLinear | QuantizedConv2d) -> Operands:
    """Returns the factors for x, whose first axis counts rows, and the layer's weight."""
    grid, strength = layer.grid.read(layer.weight, layer.training), layer.grid.strength
    x, activations, storage = x.detach(), layer.rule.activations, compute_dtype(x)
    left, left_scale = x, None
    if activations is not None:
        scale = activations.scale_of(x)
        left, left_scale = activations.levels(x, scale), expand(scale, x)
        storage = activations.storage
        if layer.watched:
            layer.clipped.append(left.abs().ge_(activations.highest).mean())
    if strength != 1:
        if left_scale is not None:
            left = torch.lerp(x.float(), left * left_scale, strength)
        left_scale, storage = None, compute_dtype(x)
    # Neither a scale per group nor a part of the full weight factors out of the product.
    right, right_scale = grid.value, None
    if strength == 1 and (grid.scale.ndim == 0 or grid.scale.shape[1] == 1):
        right, right_scale = grid.levels, grid.scale
        if right_scale.ndim:
            right_scale = right_scale.view(-1, *[1] * (x.ndim - 2))
    return Operands(
        left=left,
        left_scale=left_scale,
        left_storage=storage,
        right=right,
        right_scale=right_scale,
        right_value=grid.value,
    )


def _norm_over_channels(x_BCYX: Tensor) -> Tensor:
    x_BYXC = x_BCYX.permute(0, 2, 3, 1)
    return F.layer_norm(x_BYXC, x_BYXC.shape[-1:], eps=NORM_EPSILON).permute(0, 3, 1, 2)


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return height, width


def _described(layer: QuantizedLayer) -> str:
    rule = layer.rule
    bias = getattr(layer, "bias", None) is not None
    return f"bias={bias}, weights={rule.weights}, activations={rule.activations}, norm={rule.norm}"
