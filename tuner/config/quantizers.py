"""Named quantizers: complete settings of `Run.quantization`, for spaces and the command line.

To add one, write a line here; a new number format is a class in `models/quantization/formats.py`.
The binary and ternary ones have a norm before every layer, as BitLinear has (source B), so the
full-precision control with the same norms stands beside them.
"""

from collections.abc import Mapping
from typing import Any

from foretune.models.quantization.config import Quantization
from foretune.tuner.config.override import dotted

QUANTIZERS: dict[str, Quantization] = {
    "none": Quantization(),
    "control": Quantization(norm=True),
    "ternary-mean": Quantization(format="ternary", scale="mean", norm=True),
    "ternary-median": Quantization(format="ternary", scale="median", norm=True),
    "ternary-mean-bare": Quantization(format="ternary", scale="mean"),
    "ternary-median-bare": Quantization(format="ternary", scale="median"),
    "binary": Quantization(format="binary", norm=True),
    "int8": Quantization(format="int8"),
    "int4": Quantization(format="int4", granularity="row"),
    "fp8": Quantization(format="fp8"),
}
"""Quantizers by name."""

ABOUT: dict[str, str] = {
    "none": "full precision",
    "control": "full precision with the norms that the ternary layers have",
    "ternary-mean": "1.58 bits, scale mean |W|, norms, int8 activations per token",
    "ternary-median": "1.58 bits, scale median |W|, norms, int8 activations per token",
    "ternary-mean-bare": "ternary-mean without the extra norms",
    "ternary-median-bare": "ternary-median without the extra norms",
    "binary": "1 bit: sign of W times mean |W|, norms, int8 activations per token",
    "int8": "8 bits, one scale a tensor, int8 activations per token",
    "int4": "4 bits, one scale a row, int8 activations per token",
    "fp8": "e4m3, emulated, one scale a tensor, e4m3 activations per token",
}
"""One line each, for `foretune list quantizers`."""

FIELDS: dict[str, dict[str, Any]] = {name: dotted(q) for name, q in QUANTIZERS.items()}
"""Their fields by name."""


def nearest_name(values: Mapping[str, Any]) -> str:
    """Returns the quantizer of these fields, or that of the same format with the most of them."""

    def same(name: str) -> tuple[bool, int]:
        own = FIELDS[name]
        is_format = own["format"] == values.get("format", "none")
        return is_format, sum(own.get(field) == value for field, value in values.items())

    return max(QUANTIZERS, key=same)
