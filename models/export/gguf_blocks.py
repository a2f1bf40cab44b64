"""Number types of GGUF tensors: the smallest one that holds a weight.

TQ1_0 (1.6875 bits) and TQ2_0 (2.0625 bits) pack 256 trits of a row with one fp16 scale, so they
hold trit x scale where rows are multiples of 256 and the scale is constant over each block. Else a
ternary weight falls back to Q8_0 (8.5 bits; blocks of 32), F16 or F32. The scale is made from the
largest |x| of a block, so full-precision weights would get wrong trits (about half of them).
"""

from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

TERNARY_TYPES = {"base3": Type.TQ1_0, "2bit": Type.TQ2_0}
"""The type that packs trits as `models.export.packing` names it."""
FALLBACK = (Type.Q8_0, Type.F16, Type.F32)
FULL_TYPES = {"fp32": Type.F32, "fp16": Type.F16}
"""How the rest is stored; vectors (norms) are always F32, as llama.cpp wants them."""
TOLERANCE = 2.0**-10
"""Largest relative error of a weight that a type may make: fp16's own is 2^-11 at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One tensor as a GGUF file holds it."""

    part: str
    """What its bytes count as: ternary, fallback or full."""
    type: Type
    weights: int
    data: NDArray[Any]
    why: str = ""
    """Why it isn't of the type asked for."""


def encode_ternary(value: NDArray[np.float32], packing: str) -> Encoded:
    """Returns trit x scale, (O, I), in the ternary type or the first fallback that holds it."""
    wanted = TERNARY_TYPES[packing]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    why = ""
    for type in (wanted, *FALLBACK):
        if value.shape[-1] % gguf.GGML_QUANT_SIZES[type][0] == 0:
            data = _encode(value, type)
            if _holds(value, data, type):
                part = "ternary" if type is wanted else "fallback"
                return Encoded(part=part, type=type, weights=value.size, data=data, why=why)
            if type is wanted:
                why = (
                    f"its scale changes inside blocks of {block} weights, or is out of fp16's "
                    f"range; quantization.granularity=tensor or row has one scale per block"
                )
        elif type is wanted:
            row = value.shape[-1]
            why = (
                f"its rows have {row} weights, and {wanted.name} needs multiples of {block}; "
                f"widths in steps of {block} pack every tensor"
            )
    raise AssertionError("F32 holds every fp32 weight")


def encode_full(value: NDArray[np.float32], dtype: str) -> Encoded:
    """Returns a full-precision tensor, in F32 where it is a vector or too large for fp16."""
    type, why = Type.F32 if value.ndim < 2 else FULL_TYPES[dtype], ""
    if type is Type.F16 and float(np.abs(value).max(initial=0)) > float(np.finfo(np.float16).max):
        type, why = Type.F32, "it holds values beyond fp16's 65504"
    data = _encode(value, type)
    return Encoded(part="full", type=type, weights=value.size, data=data, why=why)


def decode(data: NDArray[Any], type: Type) -> NDArray[np.float32]:
    """Returns a tensor of a file in float32."""
    return np.ascontiguousarray(gguf.quants.dequantize(data, type), dtype=np.float32)


def _encode(value: NDArray[np.float32], type: Type) -> NDArray[Any]:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return gguf.quants.quantize(value, type)


def _holds(value: NDArray[np.float32], data: NDArray[Any], type: Type) -> bool:
    with np.errstate(invalid="ignore"):
        error = np.abs(decode(data, type) - value)
        return bool((error <= TOLERANCE * np.abs(value)).all())
