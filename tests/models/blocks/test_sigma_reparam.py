"""Sigma-reparametrised layers against the largest singular value that torch computes.

Shapes: I inputs, O outputs, N rows.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretune.models import TransformerConfig, ViTConfig
from foretune.models.blocks.layers import Linear
from foretune.models.blocks.sigma_reparam import SigmaLinear

torch.set_num_threads(1)

LM = TransformerConfig(width=16, depth=2, vocab_size=11, max_positions=8, sigma_reparam=True)
SHAPES = [(4, 4), (16, 48), (48, 16), (64, 256), (5, 1)]


def norm_of(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach(), 2))


def layer(inputs: int, outputs: int, seed: int = 0) -> SigmaLinear:
    torch.manual_seed(seed)
    return SigmaLinear(inputs, outputs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_first_pass_has_a_largest_singular_value_of_one(shape, seed):
    sigma = layer(*shape, seed)
    for module in (sigma.eval(), sigma.train()):
        assert norm_of(module.scaled_weight()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_the_formula(shape):
    sigma, x_NI = layer(*shape), torch.randn(7, shape[0])
    with torch.no_grad():
        sigma.sigma_gain.weight.fill_(1.7)
    weight_OI = sigma.weight.detach().double().requires_grad_()
    gain = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    x = x_NI.double().requires_grad_()
    expected = x @ (gain * weight_OI / torch.linalg.svdvals(weight_OI)[0]).T
    direction = torch.randn_like(expected)
    expected.backward(direction)
    own_x = x_NI.requires_grad_()
    y = sigma(own_x)
    y.backward(direction.float())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-5)
    for got, want in ((sigma.weight, weight_OI), (sigma.sigma_gain.weight, gain), (own_x, x)):
        assert got.grad is not None
        assert want.grad is not None
        assert want.grad.norm() > 0.1
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=0, atol=1e-4)


def test_the_size_of_a_weight_changes_nothing_and_no_gradient_points_along_it():
    first, second, x_NI = layer(16, 48), layer(16, 48), torch.randn(3, 16)
    with torch.no_grad():
        second.weight.mul_(5)
    torch.testing.assert_close(first(x_NI), second(x_NI))
    first(x_NI).square().sum().backward()
    assert first.weight.grad is not None
    along = float((first.weight.grad * first.weight.detach()).sum())
    assert abs(along) < 1e-4 * float(first.weight.grad.norm() * first.weight.detach().norm())


def test_a_training_pass_is_one_power_iteration_and_other_passes_none():
    sigma = layer(16, 48)
    with torch.no_grad():
        sigma.weight.add_(0.3 * torch.randn_like(sigma.weight))
    weight_OI, u_O = sigma.weight.detach(), sigma.u_O.clone()
    v_I = F.normalize(weight_OI.T @ u_O, dim=0)
    sigma.eval()(torch.randn(2, 16))
    assert torch.equal(sigma.u_O, u_O)
    before = abs(norm_of(sigma.scaled_weight()) - 1)
    sigma.train()(torch.randn(2, 16))
    torch.testing.assert_close(sigma.v_I, v_I)
    torch.testing.assert_close(sigma.u_O, F.normalize(weight_OI @ v_I, dim=0))
    for _ in range(60):
        sigma(torch.randn(2, 16))
    sigma.eval()
    assert abs(norm_of(sigma.scaled_weight()) - 1) < min(1e-3, before)


def test_two_passes_may_come_before_the_way_back():
    sigma = layer(8, 8)
    with torch.no_grad():
        sigma.weight.add_(0.3 * torch.randn_like(sigma.weight))
    (sigma(torch.randn(2, 8)).sum() + sigma(torch.randn(2, 8)).sum()).backward()
    assert sigma.weight.grad is not None
    assert sigma.weight.grad.isfinite().all()


def linears(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Linear)}


@pytest.mark.parametrize(
    "config",
    [LM, replace(LM, norm="rmsnorm", mlp="swiglu"), ViTConfig(width=16, sigma_reparam=True)],
    ids=["gelu", "swiglu", "vit"],
)
def test_all_linear_layers_of_the_blocks_and_no_other_are_reparametrised(config):
    found = linears(config.build())
    kinds = {type(m) for n, m in found.items() if n.startswith("blocks.")}
    assert kinds == {SigmaLinear}
    assert [n for n in found if not n.startswith("blocks.")] == ["head"]
    assert type(found["head"]) is Linear


def test_queries_of_zero_leave_sigma_right():
    torch.manual_seed(0)
    model = replace(LM, zero_query=True).build()
    for block in model.blocks:
        qkv = block.attention.qkv
        assert not qkv.weight[:16].any()
        assert norm_of(qkv.eval().scaled_weight()) == pytest.approx(1, abs=1e-5)


def test_a_run_goes_on_from_a_state_to_the_same_bits():
    def steps(model: nn.Module, first: int, last: int) -> None:
        for step in range(first, last):
            tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(step))
            logits = model(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.5 * parameter.grad
            model.zero_grad()

    torch.manual_seed(0)
    whole, resumed = LM.build(), LM.build()
    steps(whole, 0, 3)
    resumed.load_state_dict(whole.state_dict())
    steps(whole, 3, 6)
    steps(resumed, 3, 6)
    state = resumed.state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(state[name], value), name
    assert any("u_O" in name for name in state)


def test_autocast_does_not_round_sigma():
    sigma, x_NI = layer(64, 64).eval(), torch.randn(5, 64)
    weight_OI = sigma.scaled_weight()
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = sigma(x_NI), F.linear(x_NI, weight_OI)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, expected)
