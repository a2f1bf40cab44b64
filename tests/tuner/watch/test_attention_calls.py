"""The logits that are read off a call are those of its own queries and keys."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from foretune.tuner.watch.attention_calls import AttentionCalls

B, H, T, K = 2, 4, 16, 8


def calls(function, **how):
    found = []
    with AttentionCalls(found.append, **how):
        function()
    return found


@pytest.fixture
def qkv():
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, T, K, generator=draws) for _ in range(3)]


def later(queries=T, keys=T):
    return torch.ones(queries, keys).triu(1).bool()


def expected(q, k, *, scale=K**-0.5, hidden=None, bias=0.0):
    logits = q @ k.mT * scale + bias
    return logits if hidden is None else logits.masked_fill(hidden, -math.inf)


FORMS = {
    "causal": ({"is_causal": True}, {"hidden": later()}),
    "scaled": ({"scale": 0.5}, {"scale": 0.5}),
    "masked": ({"attn_mask": ~later()}, {"hidden": later()}),
    "biased": ({"attn_mask": later() / 4}, {"bias": later() / 4}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_fused_call(qkv, form):
    given, wanted = FORMS[form]
    (found,) = calls(lambda: F.scaled_dot_product_attention(*qkv, **given))
    torch.testing.assert_close(found.logits, expected(*qkv[:2], **wanted))
    assert (found.heads, found.head_dim, found.context, found.stride) == (H, K, T, 1)


def test_heads_that_share_keys(qkv):
    q, k, v = qkv[0], qkv[1][:, :2], qkv[2][:, :2]
    (found,) = calls(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    torch.testing.assert_close(found.logits, expected(q, k.repeat_interleave(2, 1)))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_module_of_pytorch_with_both_kinds_of_mask(weights, batch_first):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(H * K, H, batch_first=batch_first)
    nn.init.normal_(module.in_proj_bias)
    x = torch.randn(B, T, H * K)
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[1, 10:] = True
    given = x if batch_first else x.transpose(0, 1)
    (found,) = calls(
        lambda: module(
            given, given, given,
            attn_mask=later(), key_padding_mask=padding, need_weights=weights,
        )
    )  # fmt: skip
    q, k = (
        part.unflatten(-1, (H, K)).transpose(1, 2)
        for part in F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)[:2]
    )
    hidden = later() | padding[:, None, None]
    torch.testing.assert_close(found.logits, expected(q, k, hidden=hidden))


def test_keys_of_another_width():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(H * K, H, kdim=6, vdim=6, batch_first=True)
    x, memory = torch.randn(B, T, H * K), torch.randn(B, 5, 6)
    (found,) = calls(lambda: module(x, memory, memory))
    q = F.linear(x, module.q_proj_weight).unflatten(-1, (H, K)).transpose(1, 2)
    k = F.linear(memory, module.k_proj_weight).unflatten(-1, (H, K)).transpose(1, 2)
    torch.testing.assert_close(found.logits, expected(q, k))


WRITTEN_OUT = {
    "matmul and softmax": lambda q, k, v: (q @ k.mT * K**-0.5).softmax(-1) @ v,
    "functional": lambda q, k, v: F.softmax(torch.matmul(q, k.mT) / K**0.5, dim=-1) @ v,
    "einsum": lambda q, k, v: torch.softmax(torch.einsum("bhtk,bhsk->bhts", q, k) * K**-0.5, dim=3),
    "bmm": lambda q, k, v: torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).mul(K**-0.5).softmax(2),
    "baddbmm": lambda q, k, v: torch.softmax(
        torch.baddbmm(torch.zeros(1), q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=K**-0.5),
        -1,
    ),
}


@pytest.mark.parametrize("form", WRITTEN_OUT)
def test_attention_that_is_written_out(qkv, form):
    (found,) = calls(lambda: WRITTEN_OUT[form](*qkv))
    torch.testing.assert_close(found.logits.view(B, H, T, T), expected(*qkv[:2]))
    assert found.head_dim == K


NO_ATTENTION = {
    "a router": lambda x, w: (x @ w).softmax(-1),
    "a head": lambda x, w: F.linear(x, w.mT).softmax(-1),
    "over queries": lambda x, w: (x @ x.mT).softmax(-2),
    "of something else": lambda x, w: (x @ x.mT, torch.rand(3, 3, 3).softmax(-1))[0],
}


@pytest.mark.parametrize("form", NO_ATTENTION)
def test_a_softmax_that_is_no_attention(form):
    x, weight = torch.randn(B, T, K), nn.Parameter(torch.randn(K, T))
    assert calls(lambda: NO_ATTENTION[form](x, weight)) == []


@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_flex_attention_with_its_block_mask_and_its_change_of_scores(qkv):
    slopes = torch.linspace(0.1, 0.4, H)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, T, T, device="cpu")
    distance = torch.arange(T)[:, None] - torch.arange(T)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        (found,) = calls(
            lambda: flex_attention(
                *qkv, lambda s, b, h, i, j: s - slopes[h] * (i - j), block_mask=mask
            )
        )
    bias = -slopes[:, None, None] * distance
    torch.testing.assert_close(found.logits, expected(*qkv[:2], hidden=later(), bias=bias))


def test_of_many_queries_some_are_read_and_what_they_miss_is_known(qkv):
    q, k, v = qkv
    (found,) = calls(
        lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), elements=600, whole=True
    )
    assert found.stride == 4
    whole = expected(q, k, hidden=later())
    torch.testing.assert_close(found.logits, whole[:, :, 3::4])
    torch.testing.assert_close(found.largest, whole.amax())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_of_float32_under_autocast(qkv, dtype):
    q, k, v = (x.to(dtype) for x in qkv)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = calls(lambda: F.scaled_dot_product_attention(q, k, v))
    torch.testing.assert_close(found.logits, expected(q.float(), k.float()))
