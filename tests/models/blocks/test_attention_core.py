"""Attention: both ways of computing it agree, and rotary positions are what they should be.

Shapes as in `models.blocks.attention_core`.
"""

import pytest
import torch
import torch.nn.functional as F

from foretune.models.blocks import attention_core as module
from foretune.models.blocks.attention_core import MAX_PROBABILITIES, attend, turn, turn_table

torch.set_num_threads(1)
SCALE = 0.3


def reference(qkv_BT3HK, turn_T3HP, causal):
    """torch's own attention in float64 on pairs turned by hand."""
    qkv = qkv_BT3HK.double()
    if turn_T3HP is not None:
        even, odd = qkv[..., 0::2], qkv[..., 1::2]
        cos, sin = turn_T3HP.real[: qkv.shape[1]].double(), turn_T3HP.imag[: qkv.shape[1]].double()
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
        qkv = turned.flatten(-2)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=SCALE)
    return y.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("way", ["explicit", "fused"])
@pytest.mark.parametrize("rotary", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_value_and_gradient_are_those_of_the_formula(way, rotary, causal, heads, monkeypatch):
    if way == "fused":
        monkeypatch.setattr(module, "MAX_PROBABILITIES", 0)
    torch.manual_seed(0)
    table = turn_table(heads, 8, max_positions=20) if rotary else None
    qkv = torch.randn(2, 12, 3, heads, 8, requires_grad=True)
    weight = torch.randn(2, 12, heads * 8)
    y = attend(qkv, table, causal=causal, scale=SCALE, watch=lambda *_: None)
    expected = reference(qkv, table, causal)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-6)
    (grad,) = torch.autograd.grad((y * weight).sum(), qkv)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), qkv)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-5)


def test_each_way_serves_where_it_is_meant_to(monkeypatch):
    """Held probabilities only for float32 on a CPU and up to the measured bound."""
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k)
    )

    def fused_was_used(batch, positions, dtype=torch.float32):
        calls.clear()
        qkv = torch.randn(batch, positions, 3, 1, 4, dtype=dtype)
        attend(qkv, None, causal=True, scale=SCALE, watch=lambda *_: None)
        return bool(calls)

    assert not fused_was_used(8, 64)
    assert not fused_was_used(MAX_PROBABILITIES // 64**2, 64)
    assert fused_was_used(MAX_PROBABILITIES // 64**2 + 1, 64)
    assert fused_was_used(8, 64, torch.bfloat16)


@pytest.mark.parametrize("limit", [0, MAX_PROBABILITIES])
def test_the_watch_sees_q_and_k_as_they_enter_the_dot_product(limit, monkeypatch):
    monkeypatch.setattr(module, "MAX_PROBABILITIES", limit)
    table = turn_table(2, 8, max_positions=6)
    qkv = torch.randn(3, 6, 3, 2, 8)
    seen = []
    attend(qkv, table, causal=True, scale=SCALE, watch=lambda q, k, *_: seen.extend((q, k)))
    turned = turn(qkv, table)
    for got, which in zip(seen, (0, 1), strict=True):
        assert torch.equal(got, turned[:, :, which].transpose(1, 2))


def test_logits_too_large_give_a_nan_instead_of_a_silent_number():
    qkv = torch.full((1, 4, 3, 1, 4), 1e30)
    y = attend(qkv, None, causal=True, scale=SCALE, watch=lambda *_: None)
    assert y.isnan().any()


def test_turning_keeps_lengths_and_leaves_v_alone():
    table = turn_table(heads=2, head_dim=8, max_positions=12)
    qkv_BT3HK = torch.randn(2, 12, 3, 2, 8)
    turned = turn(qkv_BT3HK, table)
    assert torch.equal(turned[:, :, 2], qkv_BT3HK[:, :, 2])
    assert torch.equal(turned[:, 0], qkv_BT3HK[:, 0])
    assert (turned[:, 1:, :2] != qkv_BT3HK[:, 1:, :2]).any(-1).all()
    torch.testing.assert_close(turned.norm(dim=-1), qkv_BT3HK.norm(dim=-1))


def test_dot_products_depend_on_the_distance_alone():
    table = turn_table(heads=1, head_dim=8, max_positions=20)
    q, k = torch.randn(8), torch.randn(8)
    qk_BT3HK = torch.stack((q, k, q)).view(1, 1, 3, 1, 8).repeat(1, 20, 1, 1, 1)
    turned = turn(qk_BT3HK, table)[0, :, :, 0]
    scores_TT = turned[:, 0] @ turned[:, 1].T
    for distance in (0, 1, 7):
        along = scores_TT.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-5)


def test_both_ways_of_turning_agree():
    """Complex numbers for float32; written out for other types, and where torch compiles."""
    table = turn_table(heads=2, head_dim=16, max_positions=32)[:20]
    qkv_BT3HK = torch.randn(2, 20, 3, 2, 16)
    complex_way, written_out = turn(qkv_BT3HK, table), turn(qkv_BT3HK.double(), table)
    assert written_out.dtype == torch.float64
    torch.testing.assert_close(written_out.float(), complex_way, rtol=0, atol=1e-6)
    half = turn(qkv_BT3HK.bfloat16(), table)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), complex_way, rtol=0.02, atol=0.02)


def test_a_second_derivative_is_refused():
    qkv = torch.randn(1, 4, 3, 1, 4, requires_grad=True)
    y = attend(qkv, None, causal=True, scale=SCALE, watch=lambda *_: None)
    (grad,) = torch.autograd.grad(y.pow(2).sum(), qkv, retain_graph=True)
    assert grad.any()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(y.pow(2).sum(), qkv, create_graph=True)
