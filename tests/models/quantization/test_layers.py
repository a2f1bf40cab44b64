"""Quantized layers: exact integers, straight-through gradients, and what they keep of the old."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foretune.models.blocks.layers import Linear
from foretune.models.blocks.matmul import linear
from foretune.models.quantization import straight_through
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.layers import refresh
from foretune.models.quantization.replace import quantize

torch.set_num_threads(1)

TERNARY = Quantization(format="ternary")
CONVOLUTIONS = {
    "plain": {},
    "strided": {"stride": (2, 1), "padding": (1, 0)},
    "same": {"padding": "same", "dilation": 2},
    "grouped": {"groups": 4, "padding": 2},
    "depthwise": {"groups": 8, "padding": 1, "bias": False},
    "reflected": {"padding": 1, "padding_mode": "reflect"},
    "circular": {"padding": (0, 2), "padding_mode": "circular", "stride": 2},
}


def everywhere(name: str, module: nn.Module) -> bool:
    return True


def ternary(layer: nn.Module, config: Quantization = TERNARY) -> nn.Module:
    model = nn.Sequential(copy.deepcopy(layer))
    quantize(model, config, where=everywhere)
    return model


def results(layer, x, dy, *, inner=None):
    x = x.detach().requires_grad_()
    y = layer(x)
    return y.detach(), *torch.autograd.grad(y, [x, *(inner or layer).parameters()], dy)


@pytest.mark.parametrize("scale", ["mean", "median"])
@pytest.mark.parametrize("kernel", ["int8", "fp32"])
def test_the_product_equals_the_integer_one_bit_for_bit(scale, kernel, monkeypatch):
    """int32 sums x one scale, whether int8 or fp32 products made them."""
    if kernel == "fp32":
        monkeypatch.setattr(straight_through, "HAS_INTEGER_PRODUCT", False)
    torch.manual_seed(0)
    model = ternary(Linear(512, 96), Quantization(format="ternary", scale=scale))
    x = torch.randn(40, 512)
    form, act = model[0].rule.weights, model[0].rule.activations
    s_w, s_x = form.scale_of(model[0].weight), act.scale_of(x)
    trits = form.levels(model[0].weight, s_w).to(torch.int8)
    codes = act.levels(x, s_x).to(torch.int8)
    sums = codes.to(torch.int32) @ trits.t().to(torch.int32)
    assert torch.equal(sums, torch._int_mm(codes, trits.t()))
    assert torch.equal(model(x), sums.float() * (s_x * s_w))


@pytest.mark.parametrize("kernel", ["int8", "bf16"])
def test_in_bf16_only_the_result_is_rounded(kernel, monkeypatch):
    """Operands are integers, exact in bf16: the error is half that of dequantized ones."""
    if kernel == "bf16":
        monkeypatch.setattr(straight_through, "HAS_INTEGER_PRODUCT", False)
    torch.manual_seed(0)
    layer = Linear(256, 128)
    x = torch.randn(64, 256)
    exact = ternary(layer)(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = ternary(layer)(x)
    assert y.dtype == torch.bfloat16
    model = ternary(layer)
    operands = model[0].rule.activations(x), model[0].rule.weights(layer.weight)
    naive = F.linear(*(t.detach().bfloat16() for t in operands))
    error, naive_error = (((t.float() - exact).norm() / exact.norm()) for t in (y, naive))
    assert error < 2.5e-3
    assert error < 0.8 * naive_error


def test_gradients_in_bf16_equal_the_fp32_ones_to_its_precision():
    torch.manual_seed(0)
    layer = nn.Linear(128, 96)
    x, dy = torch.randn(64, 128), torch.randn(64, 96)
    full = results(ternary(layer), x, dy)
    with torch.autocast("cpu", torch.bfloat16):
        low = results(ternary(layer), x, dy.bfloat16())
    for mine, reference in zip(low, full, strict=True):
        assert (mine.float() - reference).norm() <= 6e-3 * reference.norm()
    assert [t.dtype for t in low[1:]] == [torch.float32] * 3


@pytest.mark.parametrize("kernel", ["int8", "fp16"])
def test_fp16_sums_of_one_sign_do_not_overflow(kernel, monkeypatch):
    """127 x 1024 is above fp16's 65504."""
    if kernel == "fp16":
        monkeypatch.setattr(straight_through, "HAS_INTEGER_PRODUCT", False)
    for layer, x in (
        (Linear(1024, 32), torch.ones(4, 1024)),
        (nn.Conv2d(1024, 4, 1, bias=False), torch.ones(2, 1024, 2, 2)),
    ):
        nn.init.constant_(layer.weight, 1e-2)
        y = ternary(layer).half()(x.half())
        torch.testing.assert_close(y, torch.full_like(y, 10.24), rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("activations", ["token", "off"])
def test_convolutions_of_any_geometry_equal_the_fake_quantized_ones(name, activations):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, **CONVOLUTIONS[name])
    model = ternary(layer, Quantization(format="ternary", activations=activations))
    x = torch.randn(3, 8, 9, 7) * torch.tensor([0.1, 1.0, 5.0]).view(3, 1, 1, 1)
    dy = torch.randn_like(layer(x))
    rule = model[0].rule

    def fake(x):
        x_q = x if rule.activations is None else rule.activations(x)
        return layer._conv_forward(x_q, rule.weights(layer.weight), layer.bias)

    for mine, reference in zip(
        results(model, x, dy), results(fake, x, dy, inner=layer), strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=2e-5)


def test_an_image_has_its_own_scale():
    """Images don't change each other, and one without the batch axis gives the same."""
    model = ternary(nn.Conv2d(4, 6, 3))
    x = torch.randn(2, 4, 8, 8)
    louder = torch.stack((x[0], 100 * x[1]))
    assert torch.equal(model(x)[0], model(louder)[0])
    torch.testing.assert_close(model(x[1]), model(x)[1])


@pytest.mark.parametrize("leading", [(), (7,), (3, 5), (2, 3, 4)])
def test_leading_axes_are_rows(leading):
    model = ternary(nn.Linear(32, 24))
    x = torch.randn(*leading, 32)
    y = model(x)
    assert y.shape == (*leading, 24)
    assert torch.equal(y.reshape(-1, 24), model(x.reshape(-1, 32)))


@pytest.mark.parametrize("layer", [nn.Linear(16, 8), nn.Conv2d(4, 8, 3)])
def test_a_bias_survives_whole(layer):
    """Added before the rescale, a bias of 1 would contribute 0.0003."""
    with torch.no_grad():
        layer.bias.fill_(1.0)
    model = ternary(layer)
    x = torch.randn(2, *((16,) if isinstance(layer, nn.Linear) else (4, 5, 5)))
    y = model(x)
    with torch.no_grad():
        model[0].bias.zero_()
    torch.testing.assert_close(y - model(x), torch.ones_like(y))


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (Linear(64, 96), torch.randn(5, 64)),
        (nn.Linear(64, 96), torch.randn(5, 2, 64)),
        (nn.Conv2d(8, 4, 3, padding=1), torch.randn(2, 8, 6, 6)),
        (nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"), torch.randn(2, 8, 6, 6)),
        (nn.Embedding(10, 8), torch.randint(10, (3, 4))),
    ],
    ids=lambda v: type(v).__name__,
)
def test_strength_zero_is_the_full_precision_layer_bit_for_bit(layer, x):
    model = ternary(layer, Quantization(format="ternary", strength=0.0))
    y, expected = model(x), layer(x)
    dy = torch.randn_like(y)
    assert torch.equal(y, expected)
    got = torch.autograd.grad(y, list(model.parameters()), dy)
    for mine, reference in zip(
        got, torch.autograd.grad(expected, list(layer.parameters()), dy), strict=True
    ):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("layer", [nn.Linear(16, 8), nn.Conv2d(16, 8, 3), nn.Embedding(9, 8)])
def test_strength_mixes_operands_linearly(layer):
    """x + lambda (Q(x) - x), for weight and input; the gradient sees the mixed operands."""
    torch.manual_seed(0)
    is_table = isinstance(layer, nn.Embedding)
    shape = (4, 16) if isinstance(layer, nn.Linear) else (4, 16, 5, 5)
    x = torch.randint(9, (4, 6)) if is_table else torch.randn(shape)
    model = ternary(layer, Quantization(format="ternary", strength=0.25))
    rule = model[0].rule
    weight = layer.weight + 0.25 * (rule.weights(layer.weight) - layer.weight)
    if is_table:
        torch.testing.assert_close(model(x), F.embedding(x, weight))
        return
    x.requires_grad_()
    mixed = x + 0.25 * (rule.activations(x) - x)
    product_of = F.linear if isinstance(layer, nn.Linear) else F.conv2d
    y, expected = model(x), product_of(mixed, weight, layer.bias)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, (x, model[0].weight), dy)
    torch.testing.assert_close(
        got, torch.autograd.grad(expected, (x, layer.weight), dy), rtol=1e-4, atol=1e-5
    )


def test_the_control_has_the_norm_and_full_precision():
    x = torch.randn(5, 64, requires_grad=True)
    layer = Linear(64, 96)
    control = ternary(layer, Quantization(norm=True))
    normed = F.layer_norm(x, (64,), eps=1e-6)
    assert torch.equal(control(x), linear(normed, layer.weight))
    torch.testing.assert_close(
        ternary(layer, Quantization(format="ternary", norm=True))(x), ternary(layer)(normed)
    )
    conv, image = nn.Conv2d(8, 4, 3), torch.randn(2, 8, 6, 6)
    centred = image - image.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(ternary(conv, Quantization(norm=True))(image), conv(normed))


def test_the_backward_pass_keeps_one_byte_an_input():
    """2048 x 256 inputs: 0.5 MiB of levels instead of 2 MiB of floats."""
    kept = []
    model = ternary(Linear(256, 1024))
    refresh(model, 1.0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(torch.randn(2048, 256, requires_grad=True))
    own = {model[0].weight.data_ptr(), model[0].grid.read(model[0].weight, True).value.data_ptr()}
    saved = sum(t.numel() * t.element_size() for t in kept if t.data_ptr() not in own)
    assert saved == 2048 * 256 + 2048 * 4


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_what_needs_no_gradient_gets_none(frozen):
    for layer, x in (
        (Linear(32, 16), torch.randn(4, 32)),
        (nn.Conv2d(4, 8, 3), torch.randn(2, 4, 5, 5)),
    ):
        model = ternary(layer)
        x.requires_grad_(frozen != "input")
        model[0].weight.requires_grad_(frozen != "weight")
        model(x).sum().backward()
        assert (x.grad is None) == (frozen == "input")
        assert (model[0].weight.grad is None) == (frozen == "weight")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("scale", "activations"), list(product(("mean", "median"), ("token", "tensor")))
)
def test_what_is_not_finite_reaches_the_output(value, scale, activations):
    """An int8 code can't hold a NaN; its scale does."""
    config = Quantization(format="ternary", scale=scale, activations=activations)
    for layer, x in (
        (Linear(96, 64), torch.randn(4, 96)),
        (nn.Conv2d(4, 8, 3), torch.randn(2, 4, 5, 5)),
    ):
        x.view(-1)[5] = value
        assert not torch.isfinite(ternary(layer, config)(x)).all()
        x.view(-1)[5] = 0
        with torch.no_grad():
            layer.weight.view(-1)[7] = value
        assert not torch.isfinite(ternary(layer, config)(x)).all()


def test_an_embedding_is_on_the_grid_and_learns():
    table = nn.Embedding(12, 16, padding_idx=3)
    model = ternary(table)
    tokens = torch.tensor([[1, 3, 5]])
    assert torch.equal(model(tokens), model[0].rule.weights(table.weight)[tokens])
    model(tokens).sum().backward()
    expected = torch.zeros(12, 16)
    expected[[1, 5]] = 1
    assert torch.equal(model[0].weight.grad, expected)


def test_second_derivatives_are_refused():
    model = ternary(Linear(16, 8))
    x = torch.randn(3, 16, requires_grad=True)
    (dx,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
