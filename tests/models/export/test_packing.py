"""Packing is a bijection, in the order that another program expects, and refuses damage."""

import numpy as np
import pytest
import torch

from foretune.models.export import reference_decoder
from foretune.models.export.packing import PACKINGS, pack, unpack

PER_BYTE = {"base3": 5, "2bit": 4}
LENGTHS = (*range(12), 254, 255, 256, 257, 10_007)

both = pytest.mark.parametrize("name", PACKINGS)


def trits(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (count,), generator=generator).to(torch.int8)


@both
@pytest.mark.parametrize("length", LENGTHS)
def test_unpack_gives_back_what_was_packed(name, length):
    """For every remainder of trits in the last byte, and for tensors of a single value."""
    for levels in (
        trits(length),
        *(torch.full((length,), v, dtype=torch.int8) for v in (-1, 0, 1)),
    ):
        packed = pack(levels, name)
        assert packed.dtype == torch.uint8
        assert len(packed) == -(-length // PER_BYTE[name])
        assert torch.equal(unpack(packed, (length,), name), levels)


@both
def test_any_shape_and_strides_are_read_row_by_row(name):
    cube = trits(210).view(5, 6, 7)
    views = {"plain": cube, "transposed": cube.transpose(0, 2), "every other": cube[:, ::2, 1:]}
    for view in views.values():
        assert torch.equal(pack(view, name), pack(view.contiguous().flatten(), name))
        assert torch.equal(unpack(pack(view, name), view.shape, name), view)
    scalar = torch.tensor(1, dtype=torch.int8)
    assert unpack(pack(scalar, name), (), name) == 1
    assert unpack(pack(cube[:0], name), (0, 6, 7), name).shape == (0, 6, 7)


@both
def test_every_byte_is_refused_or_is_the_packing_of_its_trits(name):
    """So different bytes never mean the same tensor: in a full byte and in a last one alike."""
    for count in range(1, PER_BYTE[name] + 1):
        accepted = 0
        for value in range(256):
            packed = torch.tensor([value], dtype=torch.uint8)
            try:
                levels = unpack(packed, (count,), name)
            except ValueError:
                continue
            assert torch.equal(pack(levels, name), packed)
            accepted += 1
        assert accepted == 3**count


def test_bytes_that_hold_no_trits_are_refused_where_they_are():
    good = pack(trits(50), "base3")
    for value in range(243, 256):
        damaged = good.clone()
        damaged[3] = value
        with pytest.raises(ValueError, match=f"got {value} at byte 3; the file is damaged"):
            unpack(damaged, (50,), "base3")
    four = pack(trits(40), "2bit")
    for place in range(4):
        damaged = four.clone()
        damaged[7] |= 3 << 2 * place
        with pytest.raises(ValueError, match="at byte 7; the file is damaged"):
            unpack(damaged, (40,), "2bit")


@both
def test_length_must_fit_the_shape(name):
    packed = pack(trits(20), name)
    with pytest.raises(ValueError, match=r"must be uint8 of \d+ bytes"):
        unpack(packed, (21,), name)
    with pytest.raises(ValueError, match="must be uint8"):
        unpack(packed.to(torch.int16), (20,), name)


def test_first_trit_is_the_lowest_digit():
    levels = torch.tensor([1, -1, -1, 0, 0], dtype=torch.int8)
    assert pack(levels, "base3").tolist() == [2 + 27 + 81]
    # The second byte holds one trit, and three of filling.
    assert pack(levels, "2bit").tolist() == [2 + 64, 1 + 4 + 16 + 64]


@both
@pytest.mark.parametrize("length", LENGTHS)
def test_numpy_reference_reads_the_same_trits(name, length):
    levels = trits(length, seed=1)
    packed = pack(levels, name).numpy()
    np.testing.assert_array_equal(
        reference_decoder.unpack(packed, [length], name), levels.numpy(), strict=True
    )


@pytest.mark.parametrize(("name", "value"), [("base3", 243), ("base3", 255), ("2bit", 3)])
def test_numpy_reference_refuses_damage_too(name, value):
    with pytest.raises(ValueError, match="must be bytes that"):
        reference_decoder.unpack(np.array([value], np.uint8), [PER_BYTE[name]], name)


@pytest.mark.parametrize("bad", [2, -2, 127, -128])
def test_only_trits_are_packed(bad):
    levels = trits(9)
    levels[4] = bad
    with pytest.raises(ValueError, match=f"must be -1, 0 or 1, got {bad} at position 4"):
        pack(levels, "base3")


def test_dtype_and_name_are_checked():
    with pytest.raises(ValueError, match=r"must be int8, got torch\.float32"):
        pack(torch.tensor([0.0, float("nan")]), "base3")
    with pytest.raises(ValueError, match="packing must be one of base3, 2bit, got 'base4'"):
        pack(trits(4), "base4")


def test_bits_per_trit_near_the_theoretical_ones():
    """log2(3) = 1.585; 5 trits a byte take 1.6."""
    assert 8 * len(pack(trits(100_000), "base3")) / 100_000 == 1.6
    assert 8 * len(pack(trits(100_000), "2bit")) / 100_000 == 2.0
