"""Trits in bytes: 5 to a byte in base 3 (1.6 bits each), or 4 to a byte in 2 bits each.

A tensor is read row by row (its last axis fastest) and its trits -1, 0, 1 become digits 0, 1, 2.
Byte i holds the digits d_0 .. d_(m-1) of trits m i .. m i + m - 1, the first one lowest:

    base3, m = 5: byte = d_0 + 3 d_1 + 9 d_2 + 27 d_3 + 81 d_4     0 .. 242; 243 .. 255 is damage
    2bit,  m = 4: byte = d_0 + 4 d_1 + 16 d_2 + 64 d_3             a digit 3 is damage

The last byte is filled up with trit 0 (digit 1). So n trits take ceil(n / m) bytes, and packing is
a bijection: every sequence of bytes is refused or is the packing of exactly one tensor of n trits.
`models.export.reference_decoder` is the same rule in numpy, for other programs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How many trits share a byte, and in which number system."""

    base: int
    per_byte: int

    def bytes_for(self, trits: int) -> int:
        """Returns the bytes that so many trits take."""
        return -(-trits // self.per_byte)


PACKINGS = {"base3": Packing(base=3, per_byte=5), "2bit": Packing(base=4, per_byte=4)}
"""Packings by name."""


def packing(name: str) -> Packing:
    """Returns the packing of a name; ValueError lists them."""
    if name not in PACKINGS:
        raise ValueError(f"packing must be one of {', '.join(PACKINGS)}, got {name!r}.")
    return PACKINGS[name]


def pack(levels: Tensor, name: str) -> Tensor:
    """Returns the trits of a tensor of any shape and strides as bytes, uint8 of one axis.

    Raises ValueError for another dtype than int8 and for levels that aren't trits.
    """
    rule = packing(name)
    if levels.dtype != torch.int8:
        raise ValueError(f"levels must be int8, got {levels.dtype}; round and convert them.")
    flat = levels.reshape(-1)
    outside = (flat < -1) | (flat > 1)
    if bool(outside.any()):
        at = int(outside.nonzero()[0])
        raise ValueError(f"levels must be -1, 0 or 1, got {int(flat[at])} at position {at}.")
    digits = flat.new_ones(rule.bytes_for(flat.numel()) * rule.per_byte, dtype=torch.uint8)
    digits[: flat.numel()] = (flat + 1).to(torch.uint8)
    # The largest sum is 242 or 170, so nothing overflows a byte.
    return (digits.view(-1, rule.per_byte) * _weights(rule, flat)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """Returns the trits of bytes as int8 of the given shape; the inverse of `pack`.

    Raises ValueError for a length that doesn't fit the shape and for bytes that `pack` never
    writes, the filling included.
    """
    rule = packing(name)
    trits = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != (rule.bytes_for(trits),):
        raise ValueError(
            f"packed trits of shape {tuple(shape)} must be uint8 of {rule.bytes_for(trits)} bytes "
            f"({name}), got {packed.dtype} of shape {tuple(packed.shape)}; the file is damaged."
        )
    weights = _weights(rule, packed)
    digits = packed[:, None] // weights % rule.base
    # The sum differs where something is left of the byte beyond its last digit.
    damaged = (digits > 2).any(1) | ((digits * weights).sum(1, dtype=torch.uint8) != packed)
    flat = digits.view(-1).to(torch.int8) - 1
    if trits < flat.numel():
        damaged[-1] |= (flat[trits:] != 0).any()
    if bool(damaged.any()):
        at = int(damaged.nonzero()[0])
        raise ValueError(
            f"packed trits ({name}) must be bytes that hold trits, got {int(packed[at])} at byte "
            f"{at}; the file is damaged, or packed in another way."
        )
    return flat[:trits].view(tuple(shape))


def _weights(rule: Packing, like: Tensor) -> Tensor:
    powers = [rule.base**i for i in range(rule.per_byte)]
    return torch.tensor(powers, dtype=torch.uint8, device=like.device)
