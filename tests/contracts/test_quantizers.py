"""What every number format promises, alone and inside the layers."""

from dataclasses import FrozenInstanceError, replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import FORMATS, GRANULARITIES, Ternary
from foretune.models.quantization.layers import QuantizedConv2d, QuantizedLinear
from foretune.models.quantization.replace import quantize
from foretune.models.quantization.scales import dequantize

torch.set_num_threads(1)

KINDS = {**FORMATS, "ternary-median": Ternary(scale="median")}
FORMS = {
    f"{name}-{granularity}": form.sharing(granularity, 8)
    for (name, form), granularity in product(KINDS.items(), GRANULARITIES)
}
CONFIGS = [
    Quantization(format=form, granularity=granularity, group_size=8, activations=activations)
    for form, granularity, activations in product(
        FORMATS, GRANULARITIES, ("token", "tensor", "off")
    )
]


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def form(request):
    return request.param


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.mark.parametrize("shape", [(24, 32), (6, 4, 2, 2)])
def test_levels_are_exact_in_one_byte_and_inside_the_range(form, shape):
    weight = weights(*shape)
    levels = form.levels(weight, form.scale_of(weight))
    assert levels.shape == weight.shape
    assert levels.dtype == torch.float32
    assert torch.equal(levels.to(form.storage).float(), levels)
    assert levels.abs().max() <= form.highest
    if form.storage == torch.int8:
        assert torch.equal(levels.round(), levels)


def test_each_weight_goes_to_the_nearest_level(form):
    weight = weights(24, 32)
    scale = form.scale_of(weight)
    error = (dequantize(form.levels(weight, scale), scale) - weight).abs()
    every_byte = torch.arange(-128, 128, dtype=torch.int8).view(form.storage).float()
    finite = every_byte[every_byte.isfinite()].view(1, -1)
    for level in form.levels(finite, torch.ones(())).unique():
        other = (dequantize(torch.full_like(weight, level), scale) - weight).abs()
        assert (error <= other + 1e-6).all()


def test_scales_are_positive_fp32_and_carry_no_gradient(form):
    weight = weights(24, 32).bfloat16().requires_grad_()
    scale = form.scale_of(weight)
    assert scale.dtype == torch.float32
    assert not scale.requires_grad
    assert (scale > 0).all()
    expected = {"tensor": (), "row": (24, 1), "group": (24, 4)}
    assert scale.shape == expected[form.granularity]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_levels_times_scale_and_gradients_pass_straight_through(form, dtype):
    weight = weights(24, 32).to(dtype).requires_grad_()
    value = form(weight)
    scale = form.scale_of(weight)
    assert torch.equal(value, dequantize(form.levels(weight, scale), scale).to(dtype))
    dy = torch.randn_like(weight)
    (dw,) = torch.autograd.grad(value, weight, dy)
    assert torch.equal(dw, dy)


def test_a_value_on_the_grid_stays_under_the_same_scale(form):
    weight = weights(24, 32)
    scale = form.scale_of(weight)
    levels = form.levels(weight, scale)
    assert torch.equal(form.levels(dequantize(levels, scale), scale), levels)


def test_zeros_give_finite_values(form):
    value = form(torch.zeros(8, 16))
    assert torch.isfinite(value).all()
    assert value.abs().max() <= 1e-5


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("size", [16, 128])
def test_a_weight_that_is_not_finite_is_seen_in_the_scale(form, value, size):
    weight = weights(size, 64)
    weight[2, 3] = value
    assert not torch.isfinite(form.scale_of(weight)).all()


def test_formats_are_frozen_values(form):
    assert form == replace(form)
    assert hash(form) == hash(replace(form))
    with pytest.raises(FrozenInstanceError):
        form.granularity = "row"


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_a_layer_equals_the_naive_straight_through_one(config):
    """Linear and Conv2d, value and gradients, against w + (q - w).detach() in fp64."""
    torch.manual_seed(0)
    w_form, x_form = config.weight_format(), config.activation_format()
    for layer, x in (
        (nn.Linear(32, 48), torch.randn(3, 5, 32)),
        (nn.Conv2d(8, 6, 3, padding=1, stride=2), torch.randn(2, 8, 7, 7)),
    ):
        model = nn.Sequential(layer)
        quantize(model, config, where=lambda name, module: True)
        assert isinstance(model[0], QuantizedLinear | QuantizedConv2d)
        x.requires_grad_()
        y = model(x)
        dy = torch.randn_like(y)
        got = (y.detach(), *torch.autograd.grad(y, [x, *model.parameters()], dy))

        wide = [t.detach().double().requires_grad_() for t in (x, *model.parameters())]
        x64, w64, b64 = wide
        rows = x64 if x64.ndim == 4 else x64.flatten(0, 1)
        x_q = rows if x_form is None else naive(x_form, rows)
        w_q = naive(w_form, w64)
        if x64.ndim == 4:
            y64 = F.conv2d(x_q, w_q, b64, layer.stride, layer.padding)
        else:
            y64 = F.linear(x_q, w_q, b64).view(y.shape)
        expected = (y64.detach(), *torch.autograd.grad(y64, wide, dy.double()))
        for mine, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(mine.double(), reference, rtol=1e-5, atol=1e-5)


def naive(form, x):
    """x + (Q(x) - x).detach(), with the grid computed in fp32 as everywhere."""
    low = x.detach().float()
    scale = form.scale_of(low)
    return x + (dequantize(form.levels(low, scale), scale).double() - x).detach()
