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

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

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
CHOICES: dict[str, tuple[str, ...]] = {
    "scale": tuple(MEASURES),
    "granularity": GRANULARITIES,
    "scale_dtype": tuple(SCALE_DTYPES),
}
"""What may be chosen of a format, if it has such a field."""
SETTINGS = (*CHOICES, "group_size")
"""Fields of a format that `Quantization` has too."""
TRITS_PER_BYTE = 5


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError unless value is one of the choices."""
    if isinstance(value, bool) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}.")


def check_group_size(name: str, value: object) -> None:
    """Raises ValueError unless value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 up, got {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format(ABC):
    """A number format: all that layers, telemetry, byte counts and the export need to know of it.

    To add one, write a frozen dataclass of this kind and a line in `FORMATS`. Of its fields those
    named like one of `SETTINGS` are set by `Quantization`: every format has granularity and
    group_size, and one with a field `scale` or `scale_dtype` has that choice.
    """

    storage: ClassVar[torch.dtype] = torch.int8
    """A dtype of one byte that holds every level exactly."""
    activations: ClassVar[str] = "int8"
    """Name of the format that inputs of the layers are rounded to."""
    trits: ClassVar[bool] = False
    """Whether all levels are -1, 0 or 1, which `models.export` packs into its files."""
    if TYPE_CHECKING:  # Fields of each format, after its own in the order that it prints.
        granularity: str = "tensor"
        group_size: int = 64

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if self.takes(name):
                check_choice(name, getattr(self, name), choices)
        check_group_size("group_size", self.group_size)

    @property
    @abstractmethod
    def highest(self) -> float:
        """The largest level."""

    @abstractmethod
    def scale_of(self, weight: Tensor) -> Tensor:
        """Returns the scale, fp32."""

    @abstractmethod
    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Returns the nearest levels, fp32, of the weight's shape."""

    @abstractmethod
    def level_bytes(self, count: int) -> int:
        """Returns the bytes that so many levels take in a file."""

    def takes(self, setting: str) -> bool:
        """Whether a setting of `Quantization` is one of this format."""
        return setting in {f.name for f in fields(self)}

    def sharing(self, granularity: str, group_size: int = 64) -> Self:
        """Returns the format with another granularity."""
        return self.having({"granularity": granularity, "group_size": group_size})

    def having(self, settings: Mapping[str, Any]) -> Self:
        """Returns the format with those of the settings that it takes."""
        return replace(self, **{n: v for n, v in settings.items() if self.takes(n)})

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x on its grid, in its dtype; the gradient passes straight through."""
        with torch.no_grad():
            scale = self.scale_of(x)
            value = dequantize(self.levels(x, scale), scale).to(x.dtype)
        return substitute(x, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ternary(Format):
    """Levels -1, 0, 1: clamp(round(W / s), -1, 1), s the mean or median of |W|.

    The median is the lower one of the two middle values, torch's, where the count is even. Where
    more than half of the weights are 0 it is 0 too, and the scale falls to the floor.
    """

    trits: ClassVar[bool] = True

    scale: str = "mean"
    granularity: str = "tensor"
    group_size: int = 64
    scale_dtype: str = "float32"
    """Type whose values the scale takes: float32, or float16, in which GGUF stores it."""

    @property
    def highest(self) -> float:
        return 1.0

    def scale_of(self, weight: Tensor) -> Tensor:
        measured = measure(weight, MEASURES[self.scale], self.granularity, self.group_size)
        return rounded(measured, self.scale_dtype)

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return rescale(weight, scale).round_().clamp_(-1, 1)

    def level_bytes(self, count: int) -> int:
        return -(-count // TRITS_PER_BYTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Format):
    """Levels -1, 1: the sign of W, where 0 counts as positive; the scale is the mean of |W|."""

    trits: ClassVar[bool] = True

    granularity: str = "tensor"
    group_size: int = 64
    scale_dtype: str = "float32"
    """Type whose values the scale takes: float32, or float16, in which GGUF stores it."""

    @property
    def highest(self) -> float:
        return 1.0

    def scale_of(self, weight: Tensor) -> Tensor:
        measured = measure(weight, absmean, self.granularity, self.group_size)
        return rounded(measured, self.scale_dtype)

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return (weight.detach() >= 0).float().mul_(2).sub_(1)

    def level_bytes(self, count: int) -> int:
        return -(-count // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(Format):
    """Levels -2^(bits-1) to 2^(bits-1) - 1, symmetric: the largest |x| is the largest level.

    With 8 bits the scale is max|x| / 127 and levels are clamped to [-128, 127], as in Microsoft's
    formulas (Nielsen and Schneider-Kamp's code divides by 128, and the largest x saturates).
    """

    bits: int = 8
    granularity: str = "tensor"
    group_size: int = 64

    def __post_init__(self) -> None:
        check_choice("bits", self.bits, (8, 4))
        Format.__post_init__(self)

    @property
    def highest(self) -> float:
        return 2.0 ** (self.bits - 1) - 1

    def scale_of(self, weight: Tensor) -> Tensor:
        return measure(weight, absmax, self.granularity, self.group_size) / self.highest

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return rescale(weight, scale).round_().clamp_(-self.highest - 1, self.highest)

    def level_bytes(self, count: int) -> int:
        return -(-count * self.bits // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Float8(Format):
    """The levels of e4m3 (4 exponent, 3 mantissa bits), emulated: the largest |x| becomes 448."""

    storage: ClassVar[torch.dtype] = torch.float8_e4m3fn
    activations: ClassVar[str] = "fp8"

    granularity: str = "tensor"
    group_size: int = 64

    @property
    def highest(self) -> float:
        return 448.0

    def scale_of(self, weight: Tensor) -> Tensor:
        return measure(weight, absmax, self.granularity, self.group_size) / self.highest

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        nearest = rescale(weight, scale).clamp_(-self.highest, self.highest)
        return nearest.to(self.storage).float()

    def level_bytes(self, count: int) -> int:
        return count


FORMATS: dict[str, Format] = {
    "ternary": Ternary(),
    "binary": Binary(),
    "int8": Integer(bits=8),
    "int4": Integer(bits=4),
    "fp8": Float8(),
}
"""Formats by name, each with one scale per tensor."""


def formats_with(setting: str) -> list[str]:
    """Returns the names of the formats that take a setting of `Quantization`."""
    return [name for name, form in FORMATS.items() if form.takes(setting)]


def formats_of_trits() -> list[str]:
    """Returns the names of the formats that `models.export` packs."""
    return [name for name, form in FORMATS.items() if form.trits]
