"""Reads a ternary safetensors file with numpy alone; a model for readers in other languages.

This file imports nothing else of the project: copy it, or run `python reference_decoder.py FILE`.
The layout is that of `models.export.safetensors_file`. A safetensors file is an unsigned 64-bit
little-endian number n, n bytes of JSON, and the data; the JSON gives each tensor's `dtype`, `shape`
and `data_offsets` (begin and end, counted from the end of the JSON) and, under `__metadata__`, text
by name.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRITS_PER_BYTE = {"base3": (3, 5), "2bit": (4, 4)}
"""Base and digits of a byte, by packing."""
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


def decode(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Returns what the file says of itself, and all tensors by name.

    Ternary weights are multiplied out in float32.
    """
    metadata, tensors = read_safetensors(path)
    about = json.loads(metadata["foretune"])
    for name, shape in about["shapes"].items():
        trits = unpack(tensors.pop(f"{name}.trits"), shape, about["packing"])
        tensors[name] = multiply(trits, tensors.pop(f"{name}.scale"))
    return about, tensors


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Returns metadata and tensors as they are stored; bf16 becomes float32."""
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        raw = data[begin + first : begin + last]
        if entry["dtype"] == "BF16":  # The upper half of a float32.
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return metadata, tensors


def unpack(packed: NDArray[np.uint8], shape: list[int], packing: str) -> NDArray[np.int8]:
    """Returns trits -1, 0, 1: digit j of byte i is trit per_byte x i + j, row by row, plus 1."""
    base, per_byte = TRITS_PER_BYTE[packing]
    trits = math.prod(shape)
    digits = packed[:, None].astype(np.int64) // base ** np.arange(per_byte)
    if (digits[:, -1] >= base).any() or (digits % base > 2).any() or len(packed) * per_byte < trits:
        raise ValueError(f"packed trits must be bytes that {packing} writes, got others.")
    flat = (digits % base - 1).astype(np.int8).reshape(-1)
    return flat[:trits].reshape(shape)


def multiply(trits: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns trits x scale: one scale in all, or G for each row, each for a G-th of the row."""
    if scale.ndim == 0:
        return trits * scale
    rows, groups = scale.shape
    return (trits.reshape(rows, groups, -1) * scale[:, :, None]).reshape(trits.shape)


if __name__ == "__main__":
    for name, values in decode(sys.argv[1])[1].items():
        print(f"{name} {values.dtype} {values.shape} rms {np.sqrt(np.mean(values**2)):.6g}")
