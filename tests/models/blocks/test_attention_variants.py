"""What the attention taps see of mechanisms, and attention written out against the fast ways.

Shapes: B samples, T positions, H heads, K head dimension.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import built, samples
from torch import Tensor, nn

from foretune.models import Tap, TransformerConfig, ViTConfig
from foretune.models.blocks import attention_core as attend_module
from foretune.models.blocks.attention_core import attend, turn_table
from foretune.models.blocks.attention_variants import attend_explicit, cap

torch.set_num_threads(1)

LM = TransformerConfig(width=16, depth=2, head_dim=8, vocab_size=11, max_positions=7)
BASES = {"lm": LM, "vit": ViTConfig(width=16, depth=2, head_dim=8, image_size=12, patch_size=4)}
WRITTEN_OUT: list[dict[str, Any]] = [
    {"attention_softcap": 0.7},
    {"attention": "relu2"},
    {"attention": "relu2", "kappa": 4.0, "norm_placement": "post"},
    {"attention_softcap": 0.3, "qk_norm": True, "v_norm": True, "attention_scale": "linear"},
]


def build(config: Any) -> nn.Module:
    """A model whose attention logits aren't small."""
    model = built(config).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight.mul_(1.5)
    return model


def watched(model: nn.Module, x: Tensor) -> list[tuple[Tensor, ...]]:
    """What the attention taps see."""
    seen: list[tuple[Tensor, ...]] = []
    taps = [m for m in model.modules() if isinstance(m, Tap) and m.kind == "attention"]
    for tap in taps:
        tap.watch = lambda tap, tensors: seen.append(tuple(t.detach().clone() for t in tensors))
    model(x)
    for tap in taps:
        tap.watch = None
    return seen


@pytest.mark.parametrize("kind", BASES)
def test_query_rows_start_at_zero_and_nothing_else_does(kind):
    torch.manual_seed(0)
    drawn = BASES[kind].build().state_dict()
    torch.manual_seed(0)
    model = replace(BASES[kind], zero_query=True).build()
    for name, value in model.state_dict().items():
        expected = drawn[name].clone()
        if name.endswith("qkv.weight"):
            expected[:16] = 0
        assert torch.equal(value, expected), name
    seen = watched(model, samples(model.config))
    assert len(seen) == 2
    for q_BHTK, k_BHTK, *_ in seen:
        assert not q_BHTK.any()
        assert k_BHTK.abs().min(-1).values.any()
    model(samples(model.config)).square().sum().backward()
    assert model.blocks[0].attention.qkv.weight.grad[:16].any()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("fields", WRITTEN_OUT, ids=str)
def test_where_torch_s_own_attention_does_not_serve_the_tap_sees_the_logits(fields, kind, autocast):
    config = replace(BASES[kind], **fields)
    model = build(config)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        seen = watched(model, samples(config))
    assert len(seen) == 2
    for q_BHTK, k_BHTK, logits in seen:
        scale = 1 / 8 if config.attention_scale == "linear" else 8**-0.5
        assert model.blocks[0].attention.tap.scale == scale
        expected = (q_BHTK.float() @ k_BHTK.float().mT) * scale
        if t := config.attention_softcap:
            assert expected.abs().max() > 0.5 * t
            expected = t * torch.tanh(expected / t)
        if kind == "lm":
            expected = expected.masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf)
        assert logits.dtype == torch.float32
        tolerance = 0.02 * float(q_BHTK.abs().max()) if autocast else 1e-5
        torch.testing.assert_close(logits, expected.flatten(0, 1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("kappa", [0.5, 100.0])
def test_kappa_is_the_mean_square_of_q_and_k(kind, kappa):
    config = replace(BASES[kind], kappa=kappa)
    for q_BHTK, k_BHTK, logits in watched(build(config), samples(config)):
        for z in (q_BHTK, k_BHTK):
            torch.testing.assert_close(z.square().mean(-1), torch.full(z.shape[:-1], kappa))
        assert logits.amax() <= kappa * 8**0.5 * (1 + 1e-6)


@pytest.mark.parametrize("scale", ["sqrt", "linear"])
@pytest.mark.parametrize(
    "fields",
    [{"qk_norm": True, "v_norm": True}, {"kappa": 9.0}, {"norm_placement": "post"}],
    ids=str,
)
def test_the_fused_attention_serves_mechanisms_outside_of_it(fields, scale, monkeypatch):
    config = replace(LM, **fields, attention_scale=scale)
    model, x = build(config), samples(config)
    with torch.no_grad():
        held = model(x)
        monkeypatch.setattr(attend_module, "MAX_PROBABILITIES", 0)
        fused = model(x)
        (q_BHTK, _, *logits), _ = watched(model, x)
    assert not logits
    assert q_BHTK.shape == (3, 2, 7, 8)
    torch.testing.assert_close(fused, held, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_softmax_written_out_is_that_of_the_fast_ways(causal):
    torch.manual_seed(0)
    qkv_BT3HK = torch.randn(2, 9, 3, 2, 8, requires_grad=True)
    table = turn_table(2, 8, max_positions=12)
    settings = {"causal": causal, "scale": 0.4, "watch": lambda *_: None}
    fast = attend(qkv_BT3HK, table, **settings)
    written = [
        attend_explicit(qkv_BT3HK, table, **settings, weights="softmax", softcap=softcap)
        for softcap in (0.0, 1e4)
    ]
    direction = torch.randn_like(fast)
    (expected,) = torch.autograd.grad(fast, qkv_BT3HK, direction)
    for y in written:
        torch.testing.assert_close(y, fast, rtol=0, atol=1e-5)
        (grad,) = torch.autograd.grad(y, qkv_BT3HK, direction)
        torch.testing.assert_close(grad, expected, rtol=0, atol=1e-4)


def test_a_cap_is_an_odd_bound_and_none_at_zero():
    x = torch.linspace(-100, 100, 41)
    assert cap(x, 0.0) is x
    assert cap(x, 5.0).abs().max() <= 5
    assert torch.equal(cap(-x, 5.0), -cap(x, 5.0))
    torch.testing.assert_close(cap(x, 1e6), x)


def test_logits_too_large_for_relu2_give_no_finite_number():
    qkv = torch.full((1, 4, 3, 1, 4), 1e30)
    settings = {"causal": True, "scale": 1.0, "watch": lambda *_: None, "softcap": 0.0}
    assert not attend_explicit(qkv, None, **settings, weights="relu2").isfinite().any()
