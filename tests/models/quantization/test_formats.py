"""Ternary scales against the published formulas, and the traps of mean and median."""

from dataclasses import replace

import pytest
import torch

from foretune.models.quantization.formats import Binary, Float8, Integer, Ternary
from foretune.models.quantization.scales import (
    HISTOGRAM_MIN_NUMEL,
    SCALE_FLOOR,
    absmedian,
    dequantize,
)

torch.set_num_threads(1)

MEAN, MEDIAN = Ternary(scale="mean"), Ternary(scale="median")


def gaussian(*shape: int, std: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * std


def trits(form, weight):
    return form.levels(weight, form.scale_of(weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [MEAN, MEDIAN])
def test_a_ternary_weight_has_exactly_three_values(form, dtype):
    """w + (q - w).detach() has up to 7 in bf16."""
    weight = gaussian(256, 256, std=0.02).to(dtype)
    scale = form.scale_of(weight).to(dtype)
    assert set(form(weight).unique().tolist()) == {-float(scale), 0.0, float(scale)}
    naive = weight + (form(weight) - weight).detach()
    if dtype == torch.bfloat16:
        assert len(naive.unique()) > 3


@pytest.mark.parametrize(("form", "zeros", "scale"), [(MEAN, 0.309, 0.799), (MEDIAN, 0.263, 0.674)])
def test_gaussian_weights_give_the_known_share_of_zeros(form, zeros, scale):
    """0.5 x 0.7979 sigma and 0.5 x 0.6745 sigma cut off 31.0 % and 26.4 %."""
    weight = gaussian(1024, 1024)
    assert float(form.scale_of(weight)) == pytest.approx(scale, abs=2e-3)
    assert float((trits(form, weight) == 0).float().mean()) == pytest.approx(zeros, abs=2e-3)


def test_microsoft_s_weights_and_activations():
    """The Era of 1-bit LLMs: Training Tips, Code and FAQ, 2024: weight_quant, activation_quant."""
    weight, x = gaussian(96, 64, std=0.1), gaussian(40, 64, seed=1)
    scale = 1.0 / weight.abs().mean().clamp_(min=1e-5)
    levels = (weight * scale).round().clamp_(-1, 1)
    assert torch.equal(trits(MEAN, weight), levels)
    torch.testing.assert_close(MEAN(weight), levels / scale, rtol=1e-6, atol=0)

    token = Integer(bits=8, granularity="row")
    scale = 127.0 / x.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)
    levels = (x * scale).round().clamp_(-128, 127)
    assert torch.equal(trits(token, x), levels)
    torch.testing.assert_close(token(x), levels / scale, rtol=1e-6, atol=0)


def test_the_authors_weights_and_their_128():
    """bitlinear 2.4.6: the same trits; for inputs 128 / max|x|, so the largest one saturates."""
    weight, x = gaussian(96, 64, std=0.1), gaussian(40, 64, seed=1)
    scale = max(abs(-1), abs(1)) / torch.median(weight.abs()).clamp_(min=1e-5)
    assert torch.equal(trits(MEDIAN, weight), (weight * scale).round().clamp_(-1, 1))

    largest = x.abs().max(dim=-1, keepdim=True).values
    theirs = (x * (128 / largest)).round().clamp_(-128, 127)
    ours = trits(Integer(bits=8, granularity="row"), x)
    assert (theirs - ours).abs().max() == 1
    assert (ours.abs() == 127).any(1).all()


@pytest.mark.parametrize("numel", [1, 2, 3, 10, 4095, 4096, 4097, 65536, 100_001])
def test_the_median_is_torch_s_lower_one_to_the_bit(numel):
    for seed, spread in ((0, 1e-3), (1, 1.0), (2, 1e6)):
        values = gaussian(numel, seed=seed) * spread
        assert torch.equal(absmedian(values), values.abs().median())
    assert absmedian(torch.tensor([4.0, -1.0, 3.0, -2.0])) == 2


@pytest.mark.parametrize("numel", [64, 2 * HISTOGRAM_MIN_NUMEL])
def test_the_median_of_repeated_and_extreme_values(numel):
    tiny = torch.finfo(torch.float32).smallest_normal / 8
    for values in (
        torch.zeros(numel),
        -torch.ones(numel),
        torch.arange(numel) % 3 - 1.0,
        torch.full((numel,), tiny),
        torch.full((numel,), torch.finfo(torch.float32).max),
    ):
        assert torch.equal(absmedian(values), values.abs().median())


def test_rows_and_groups_have_their_own_median():
    weight = gaussian(16, 64)
    rows = Ternary(scale="median", granularity="row").scale_of(weight)
    groups = Ternary(scale="median", granularity="group", group_size=16).scale_of(weight)
    for row in range(16):
        assert rows[row, 0] == weight[row].abs().median()
        for group in range(4):
            part = weight[row, 16 * group : 16 * (group + 1)]
            assert groups[row, group] == part.abs().median()


def test_more_than_half_zeros_floor_the_median_but_not_the_mean():
    weight = gaussian(64, 64)
    weight.view(-1)[: 64 * 33] = 0
    assert MEDIAN.scale_of(weight) == pytest.approx(SCALE_FLOOR)
    assert float(MEAN.scale_of(weight)) > 0.3
    assert float((trits(MEDIAN, weight) == 0).float().mean()) == pytest.approx(33 / 64, abs=1e-3)


def test_a_second_quantization_shrinks_a_mean_scale_and_keeps_a_median_one():
    """Why the export computes trits once: the mean of |trits x scale| counts the zeros."""
    weight = gaussian(512, 512)
    again = float(MEAN.scale_of(MEAN(weight)) / MEAN.scale_of(weight))
    assert again == pytest.approx(1 - 0.309, abs=5e-3)
    assert torch.equal(MEDIAN.scale_of(MEDIAN(weight)), MEDIAN.scale_of(weight))
    assert torch.equal(trits(MEAN, MEAN(weight)), trits(MEAN, weight))


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
@pytest.mark.parametrize("form", [MEAN, MEDIAN, Binary()])
def test_an_fp16_scale_is_the_nearest_one_that_fp16_holds(form, granularity):
    weight = gaussian(32, 64, std=0.1)
    exact = form.sharing(granularity, 16)
    scale, fp16 = exact.scale_of(weight), replace(exact, scale_dtype="float16").scale_of(weight)
    assert fp16.dtype == torch.float32
    assert torch.equal(fp16, fp16.half().float())
    assert 0 < (fp16 / scale - 1).abs().max() <= 2**-11


def test_binary_has_no_zero():
    weight = torch.tensor([[-2.0, -0.0, 0.0, 4.0]])
    assert trits(Binary(), weight).tolist() == [[-1, 1, 1, 1]]
    assert Binary().scale_of(weight) == 1.5


def test_integers_put_the_largest_at_the_end_of_the_grid():
    weight = gaussian(32, 32)
    for bits, highest in ((8, 127), (4, 7)):
        levels = trits(Integer(bits=bits), weight)
        assert levels.abs().max() == highest
        error = (Integer(bits=bits)(weight) - weight).abs().max()
        assert error <= weight.abs().max() / highest / 2 * (1 + 1e-5)


def test_a_scale_that_is_too_small_clamps():
    x, one = torch.tensor([[-300.0, -0.5, 0.5, 1.5, 300.0]]), torch.ones(())
    assert Integer(bits=8).levels(x, one).tolist() == [[-128, 0, 0, 2, 127]]
    assert Integer(bits=4).levels(x, one).tolist() == [[-8, 0, 0, 2, 7]]
    assert MEAN.levels(x, one).tolist() == [[-1, 0, 0, 1, 1]]
    assert Float8().levels(2 * x, one)[0, 0] == -448


def test_float8_keeps_three_bits_of_mantissa_of_each_weight():
    weight = gaussian(64, 64)
    value = Float8()(weight)
    large = weight.abs() > weight.abs().max() / 2**10
    assert ((value - weight).abs() / weight.abs())[large].max() <= 2**-4 * (1 + 1e-5)
    assert trits(Float8(), weight).abs().max() == 448


def test_groups_are_neighbours_in_a_row_of_a_convolution():
    weight = gaussian(4, 6, 3, 3)
    form = Ternary(granularity="group", group_size=27)
    scale = form.scale_of(weight)
    assert scale.shape == (4, 2)
    torch.testing.assert_close(scale[1, 0], weight[1, :3].abs().mean())
    expected = trits(MEAN, weight[1, 3:]) * MEAN.scale_of(weight[1, 3:])
    got = dequantize(form.levels(weight, scale), scale)[1, 3:]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Ternary(scale="absmean"),
        lambda: Ternary(granularity="channel"),
        lambda: Ternary(scale_dtype="bfloat16"),
        lambda: Integer(bits=2),
        lambda: Integer(bits=True),
        lambda: Binary(group_size=0),
        lambda: Float8(group_size=1.5),
    ],
)
def test_impossible_formats_are_refused_in_a_sentence(build):
    with pytest.raises(ValueError, match=r"must be .*, got "):
        build()
