"""Number formats as values: a grid of levels, the scale that stretches it, and how to round.

A tensor stands on a grid when it is levels x scale. `scale` always multiplies the levels; scales
are fp32, never zero, and carry no gradient. Sources: ternary with the mean, Ma et al. 2024 (BitNet
b1.58; formulas in Microsoft's "Training Tips, Code and FAQ"); with the median, Nielsen and
Schneider-Kamp 2024; binary, Rastegari et al. 2016 (XNOR-Net).

A NaN anywhere makes its scale NaN, an infinity makes it infinite or NaN: a weight that isn't finite
is never rounded away.

Granularity says what shares a scale: the whole `tensor`; a `row`, that is everything under one
index of the first axis (an output of a layer, a token, an image); or a `group` of `group_size`
neighbours in a row. Scales have the shapes (), (O, 1) and (O, G).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from foretune.models.quantization.scales import (
    SCALE_DTYPES,
    absmax,
    absmean,
    absmedian,
    dequantize,
    measure,
    rescale,
    rounded,
)
from foretune.models.quantization.straight_through import substitute

GRANULARITIES = ("tensor", "row", "group")
MEASURES = {"mean": absmean, "median": absmedian}


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError unless value is one of the choices."""
    if isinstance(value, bool) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}.")


def check_group_size(name: str, value: object) -> None:
    """Raises ValueError unless value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 up, got {value!r}.")


def _check_sharing(format: "Format") -> None:
    check_choice("granularity", format.granularity, GRANULARITIES)
    check_group_size("group_size", format.group_size)


class Format(Protocol):
    """A number format: what the layers, their telemetry and the export need to know of it."""

    storage: ClassVar[torch.dtype]
    """A dtype of one byte that holds every level exactly."""

    @property
    def granularity(self) -> str: ...

    @property
    def group_size(self) -> int: ...

    @property
    def highest(self) -> float:
        """The largest level."""
        ...

    def sharing(self, granularity: str, group_size: int = 64) -> "Format":
        """Returns the format with another granularity."""
        ...

    def scale_of(self, weight: Tensor) -> Tensor:
        """Returns the scale, fp32."""
        ...

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Returns the nearest levels, fp32, of the weight's shape."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x on its grid, in its dtype; the gradient passes straight through."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ternary:
    """Levels -1, 0, 1: clamp(round(W / s), -1, 1), s the mean or median of |W|.

    The median is the lower one of the two middle values, torch's, where the count is even. Where
    more than half of the weights are 0 it is 0 too, and the scale falls to the floor.
    """

    storage: ClassVar[torch.dtype] = torch.int8

    scale: str = "mean"
    granularity: str = "tensor"
    group_size: int = 64
    scale_dtype: str = "float32"
    """Type whose values the scale takes: float32, or float16, in which GGUF stores it."""

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, tuple(MEASURES))
        check_choice("scale_dtype", self.scale_dtype, tuple(SCALE_DTYPES))
        _check_sharing(self)

    @property
    def highest(self) -> float:
        return 1.0

    def sharing(self, granularity: str, group_size: int = 64) -> "Ternary":
        return replace(self, granularity=granularity, group_size=group_size)

    def scale_of(self, weight: Tensor) -> Tensor:
        measured = measure(weight, MEASURES[self.scale], self.granularity, self.group_size)
        return rounded(measured, self.scale_dtype)

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return rescale(weight, scale).round_().clamp_(-1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return _through(self, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Levels -1, 1: the sign of W, where 0 counts as positive; the scale is the mean of |W|."""

    storage: ClassVar[torch.dtype] = torch.int8

    granularity: str = "tensor"
    group_size: int = 64
    scale_dtype: str = "float32"
    """Type whose values the scale takes: float32, or float16, in which GGUF stores it."""

    def __post_init__(self) -> None:
        check_choice("scale_dtype", self.scale_dtype, tuple(SCALE_DTYPES))
        _check_sharing(self)

    @property
    def highest(self) -> float:
        return 1.0

    def sharing(self, granularity: str, group_size: int = 64) -> "Binary":
        return replace(self, granularity=granularity, group_size=group_size)

    def scale_of(self, weight: Tensor) -> Tensor:
        measured = measure(weight, absmean, self.granularity, self.group_size)
        return rounded(measured, self.scale_dtype)

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight.detach() >= 0).float().mul_(2).sub_(1)

    def __call__(self, x: Tensor) -> Tensor:
        return _through(self, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """Levels -2^(bits-1) to 2^(bits-1) - 1, symmetric: the largest |x| is the largest level.

    With 8 bits the scale is max|x| / 127 and levels are clamped to [-128, 127], as in Microsoft's
    formulas (Nielsen and Schneider-Kamp's code divides by 128, and the largest x saturates).
    """

    storage: ClassVar[torch.dtype] = torch.int8

    bits: int = 8
    granularity: str = "tensor"
    group_size: int = 64

    def __post_init__(self) -> None:
        check_choice("bits", self.bits, (8, 4))
        _check_sharing(self)

    @property
    def highest(self) -> float:
        return 2.0 ** (self.bits - 1) - 1

    def sharing(self, granularity: str, group_size: int = 64) -> "Integer":
        return replace(self, granularity=granularity, group_size=group_size)

    def scale_of(self, weight: Tensor) -> Tensor:
        return measure(weight, absmax, self.granularity, self.group_size) / self.highest

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return rescale(weight, scale).round_().clamp_(-self.highest - 1, self.highest)

    def __call__(self, x: Tensor) -> Tensor:
        return _through(self, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Float8:
    """The levels of e4m3 (4 exponent, 3 mantissa bits), emulated: the largest |x| becomes 448."""

    storage: ClassVar[torch.dtype] = torch.float8_e4m3fn

    granularity: str = "tensor"
    group_size: int = 64

    def __post_init__(self) -> None:
        _check_sharing(self)

    @property
    def highest(self) -> float:
        return 448.0

    def sharing(self, granularity: str, group_size: int = 64) -> "Float8":
        return replace(self, granularity=granularity, group_size=group_size)

    def scale_of(self, weight: Tensor) -> Tensor:
        return measure(weight, absmax, self.granularity, self.group_size) / self.highest

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        nearest = rescale(weight, scale).clamp_(-self.highest, self.highest)
        return nearest.to(self.storage).float()

    def __call__(self, x: Tensor) -> Tensor:
        return _through(self, x)


def _through(format: Format, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = format.scale_of(x)
        value = dequantize(format.levels(x, scale), scale).to(x.dtype)
    return substitute(x, value)


QUANTIZERS: dict[str, Format] = {
    "ternary-mean": Ternary(scale="mean"),
    "ternary-median": Ternary(scale="median"),
    "binary": Binary(),
    "int8": Integer(bits=8),
    "int4": Integer(bits=4),
    "fp8": Float8(),
}
"""Weight formats by name, each with one scale per tensor."""
