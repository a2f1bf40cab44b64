"""Taps and rotary positions. Shapes as in `models.layers`."""

import pytest
import torch

from models import Tap, TransformerConfig
from models.layers import Rotary

torch.set_num_threads(1)


def test_a_tap_returns_the_very_tensors_it_got():
    tap = Tap("attention", layer=1)
    q, k = torch.randn(2, 3), torch.randn(2, 3)
    out = tap(q, k)
    assert out[0] is q
    assert out[1] is k
    assert not list(tap.parameters())
    assert not list(tap.buffers())


def test_every_block_and_the_head_have_their_taps():
    model = TransformerConfig(width=16, depth=3).build()
    taps = [(m.kind, m.layer) for m in model.modules() if isinstance(m, Tap)]
    expected = [(kind, i) for i in range(3) for kind in ("attention", "block_output")]
    assert sorted(taps) == sorted([*expected, ("logits", -1)])


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_attention_tap_holds_what_enters_the_dot_product(qk_norm):
    """Attention computed from the tapped q and k and from v equals the module's output."""
    torch.manual_seed(0)
    model = TransformerConfig(width=32, depth=1, head_dim=8, qk_norm=qk_norm).build()
    attention = model.blocks[0].attention
    seen: list[torch.Tensor] = []
    attention.tap.register_forward_hook(lambda tap, inputs, output: seen.extend(inputs))
    x_BTD = torch.randn(2, 10, 32)
    with torch.no_grad():
        y_BTD = attention(x_BTD)
        q_BHTK, k_BHTK = seen
        assert q_BHTK.shape == k_BHTK.shape == (2, 4, 10, 8)
        scores = attention.tap.scale * q_BHTK @ k_BHTK.mT
        p = scores.masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf).softmax(-1)
        v_BHTK = (x_BTD @ attention.qkv.weight[64:].T).view(2, 10, 4, 8).transpose(1, 2)
        again = (p @ v_BHTK).transpose(1, 2).flatten(2) @ attention.attention_out.weight.T
    assert attention.tap.scale == 8**-0.5
    assert attention.tap.causal
    torch.testing.assert_close(y_BTD, again, rtol=0, atol=1e-5)


def test_rotary_turns_q_and_k_keeps_their_length_and_leaves_v_alone():
    rotary = Rotary(heads=2, head_dim=8, max_positions=12)
    qkv_BT3HK = torch.randn(2, 12, 3, 2, 8)
    turned = rotary(qkv_BT3HK)
    assert torch.equal(turned[:, :, 2], qkv_BT3HK[:, :, 2])
    assert torch.equal(turned[:, 0], qkv_BT3HK[:, 0])
    assert (turned[:, 1:, :2] != qkv_BT3HK[:, 1:, :2]).any(-1).all()
    torch.testing.assert_close(turned.norm(dim=-1), qkv_BT3HK.norm(dim=-1))


def test_rotary_dot_products_depend_on_the_distance_alone():
    rotary = Rotary(heads=1, head_dim=8, max_positions=20)
    q, k = torch.randn(8), torch.randn(8)
    qk_BT3HK = torch.stack((q, k, q)).view(1, 1, 3, 1, 8).repeat(1, 20, 1, 1, 1)
    turned = rotary(qk_BT3HK)[0, :, :, 0]
    scores_TT = turned[:, 0] @ turned[:, 1].T
    for distance in (0, 1, 7):
        along = scores_TT.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-5)


def test_both_ways_of_turning_agree():
    """Complex numbers for float32; written out for other types, and where torch compiles."""
    rotary = Rotary(heads=2, head_dim=16, max_positions=32)
    qkv_BT3HK = torch.randn(2, 20, 3, 2, 16)
    complex_way, written_out = rotary(qkv_BT3HK), rotary(qkv_BT3HK.double())
    assert written_out.dtype == torch.float64
    torch.testing.assert_close(written_out.float(), complex_way, rtol=0, atol=1e-6)
    half = rotary(qkv_BT3HK.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), complex_way, rtol=0.02, atol=0.02)
