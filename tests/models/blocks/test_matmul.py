"""The linear map of every layer equals torch's, value and gradients, whichever kernel ran."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foretune.models.blocks import matmul
from foretune.models.blocks.matmul import linear

torch.set_num_threads(1)

SHAPES = [
    (leading, inputs, outputs)
    for leading, (inputs, outputs) in product(
        ((1,), (7,), (3, 5), (2, 3, 4)),
        ((16, 16), (16, 256), (256, 16), (32, 128), (48, 96), (64, 64), (128, 384), (256, 64)),
    )
]


def pair(leading, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(*leading, inputs, requires_grad=True)
    weight = (torch.randn(outputs, inputs) * inputs**-0.5).requires_grad_()
    return x, weight


def value_and_gradients(f, x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    y = f(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), dy)


@pytest.mark.parametrize(("leading", "inputs", "outputs"), SHAPES)
def test_value_and_gradients_equal_torch_s_linear(leading, inputs, outputs):
    x, weight = pair(leading, inputs, outputs)
    dy = torch.randn(*leading, outputs)
    got = value_and_gradients(linear, x, weight, dy)
    doubles = (x.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    expected = value_and_gradients(F.linear, *doubles, dy.double())
    for mine, torchs in zip(got, expected, strict=True):
        assert mine.shape == torchs.shape
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), torchs, rtol=1e-5, atol=1e-5)


def test_gradients_that_are_not_contiguous_are_served():
    """A sum sends back one number seen from every place; a transpose sends strides."""
    x, weight = pair((6,), 64, 128)
    for reduce in (Tensor.sum, lambda y: (y.T.contiguous() ** 2).T.sum(0).mean()):
        got = torch.autograd.grad(reduce(linear(x, weight)), (x, weight))
        expected = torch.autograd.grad(reduce(F.linear(x, weight)), (x, weight))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_inputs_that_are_not_contiguous_are_served():
    x = torch.randn(64, 10).T
    weight = torch.randn(64, 64).T
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", ["x", "weight", "neither"])
def test_what_needs_no_gradient_gets_none(wanted):
    x, weight = pair((5,), 64, 64)
    x.requires_grad_(wanted == "x")
    weight.requires_grad_(wanted == "weight")
    y = linear(x, weight)
    assert y.requires_grad == (wanted != "neither")
    if wanted != "neither":
        y.square().sum().backward()
    assert (x.grad is not None) == (wanted == "x")
    assert (weight.grad is not None) == (wanted == "weight")


def test_no_grad_leaves_no_graph():
    x, weight = pair((5,), 64, 64)
    with torch.no_grad():
        assert linear(x, weight).grad_fn is None


def test_float64_passes_gradcheck():
    x, weight = (t.detach().double().requires_grad_() for t in pair((2,), 32, 128))
    assert torch.autograd.gradcheck(linear, (x, weight), fast_mode=True)


def test_bfloat16_and_autocast_keep_torch_s_result():
    x, weight = (t.detach() for t in pair((5,), 64, 64))
    low = x.bfloat16(), weight.bfloat16()
    assert torch.equal(linear(*low), F.linear(*low))
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = linear(x, weight), F.linear(x, weight)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, expected)


def test_wide_layers_take_onednn_where_the_processor_gains_by_it_and_small_ones_never():
    x, weight = pair((5,), 64, 64)
    assert ("OneDnn" in repr(linear(x, weight).grad_fn)) == matmul.HAS_ONEDNN
    for inputs, outputs in ((16, 16), (16, 256), (32, 96)):
        assert "OneDnn" not in repr(linear(*pair((5,), inputs, outputs)).grad_fn)


def test_same_inputs_same_bits():
    x, weight = pair((33,), 128, 256)
    assert torch.equal(linear(x, weight), linear(x.clone(), weight.clone()))


def test_second_derivatives_and_empty_batches_are_those_of_torch():
    x = torch.randn(4, 64, requires_grad=True)
    w = (torch.randn(128, 64) / 8).requires_grad_()

    def second(f):
        y = f(x, w).pow(3).sum()
        g = torch.autograd.grad(y, (x, w), create_graph=True)
        return torch.autograd.grad(sum(t.pow(2).sum() for t in g), (x, w))

    torch.testing.assert_close(second(linear), second(F.linear), rtol=1e-3, atol=1e-3)
    assert linear(torch.randn(0, 64), w).shape == (0, 128)
