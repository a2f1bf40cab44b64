"""Taps of the model. Shapes as in `models.blocks.layers`."""

import pytest
import torch

from foretune.models import Tap, TransformerConfig

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
    attention.tap.watch = lambda tap, tensors: seen.extend(tensors[:2])
    x_BTD = torch.randn(2, 10, 32)
    with torch.no_grad():
        y_BTD = attention(x_BTD.flatten(0, 1), batch=2).view(2, 10, 32)
        q_BHTK, k_BHTK = seen
        assert q_BHTK.shape == k_BHTK.shape == (2, 4, 10, 8)
        scores = attention.tap.scale * q_BHTK @ k_BHTK.mT
        p = scores.masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf).softmax(-1)
        v_BHTK = (x_BTD @ attention.qkv.weight[64:].T).view(2, 10, 4, 8).transpose(1, 2)
        again = (p @ v_BHTK).transpose(1, 2).flatten(2) @ attention.attention_out.weight.T
    assert attention.tap.scale == 8**-0.5
    assert attention.tap.causal
    torch.testing.assert_close(y_BTD, again, rtol=0, atol=1e-5)
