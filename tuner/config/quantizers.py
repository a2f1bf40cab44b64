"""Named quantizers: complete settings of `Run.quantization`, for spaces and the command line.

To add one, write a line here; a new number format is a class in `models/quantization/formats.py`.
The binary and ternary ones have a norm before every layer, as BitLinear has (source B), so the
full-precision control with the same norms stands beside them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foretune.models.quantization.config import Quantization
from foretune.tuner.config.override import dotted


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A setting of `Run.quantization` that has a name."""

    about: str
    """One line, for `foretune list quantizers`."""
    quantization: Quantization

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the quantization by name."""
        return dotted(self.quantization)


QUANTIZERS: dict[str, Quantizer] = {
    "none": Quantizer("full precision", Quantization()),
    "control": Quantizer(
        "full precision with the norms that the ternary layers have", Quantization(norm=True)
    ),
    "ternary-mean": Quantizer(
        "1.58 bits, scale mean |W|, norms, int8 activations per token",
        Quantization(format="ternary", scale="mean", norm=True),
    ),
    "ternary-median": Quantizer(
        "1.58 bits, scale median |W|, norms, int8 activations per token",
        Quantization(format="ternary", scale="median", norm=True),
    ),
    "ternary-mean-bare": Quantizer(
        "ternary-mean without the extra norms", Quantization(format="ternary", scale="mean")
    ),
    "ternary-median-bare": Quantizer(
        "ternary-median without the extra norms", Quantization(format="ternary", scale="median")
    ),
    "binary": Quantizer(
        "1 bit: sign of W times mean |W|, norms, int8 activations per token",
        Quantization(format="binary", norm=True),
    ),
    "int8": Quantizer(
        "8 bits, one scale a tensor, int8 activations per token", Quantization(format="int8")
    ),
    "int4": Quantizer(
        "4 bits, one scale a row, int8 activations per token",
        Quantization(format="int4", granularity="row"),
    ),
    "fp8": Quantizer(
        "e4m3, emulated, one scale a tensor, e4m3 activations per token", Quantization(format="fp8")
    ),
}
"""Quantizers by name."""


def nearest_name(values: Mapping[str, Any]) -> str:
    """Returns the quantizer of these fields, or that of the same format with the most of them."""

    def same(name: str) -> tuple[bool, int]:
        own = QUANTIZERS[name].fields
        is_format = own["format"] == values.get("format", "none")
        return is_format, sum(own.get(field) == value for field, value in values.items())

    return max(QUANTIZERS, key=same)
