"""QK-clip: after it the batch that was seen has largest logits of min(S, tau) in every head."""

import pytest
import torch
from torch import Tensor, nn

from foretune.models import TransformerConfig
from foretune.models.blocks.layers import Tap
from foretune.tuner.training.qk_clip import QKClip

torch.set_num_threads(1)
HEADS, K, WIDTH = 4, 8, 32


class Biased(nn.Module):
    """One attention of a user's own, with a bias and without a mask."""

    def __init__(self, *, bias: bool):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        self.tap = Tap("attention", layer=0, scale=K**-0.5, causal=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BTD).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (HEADS, K)).transpose(1, 2) for y in (q, k, v))
        q, k = self.tap(q, k)
        return torch.softmax(q @ k.mT * K**-0.5, -1) @ v


def largest_by_head(model: Biased, x: Tensor) -> Tensor:
    """The largest logits of each head, (H,), from the weights by hand."""
    bias = model.qkv.bias if model.qkv.bias is not None else torch.zeros(3 * WIDTH)
    q, k, _ = (x @ model.qkv.weight.T + bias).chunk(3, dim=-1)
    return torch.stack(
        [
            (q[..., h * K : (h + 1) * K] @ k[..., h * K : (h + 1) * K].mT).max() * K**-0.5
            for h in range(HEADS)
        ]
    )


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_heads_above_tau_are_scaled_to_it_and_nothing_else_changes(bias):
    torch.manual_seed(0)
    model = Biased(bias=bias)
    model.qkv.weight.view(3, HEADS, -1)[:2] *= torch.tensor([0.3, 2.0, 3.0, 0.5])[:, None]
    batch = torch.randn(6, 5, WIDTH)
    before = {n: p.clone() for n, p in model.named_parameters()}
    expected = largest_by_head(model, batch)
    tau = float(expected.sort().values[1:3].mean())
    clip = QKClip(model, tau, capped=False)
    with clip.watching():
        for part in batch.split(2):  # Gradients of a batch add up over its parts.
            model(part)
    assert clip.clip() == 2
    torch.testing.assert_close(largest_by_head(model, batch), expected.clamp(max=tau))
    factors = (tau / expected).clamp(max=1.0).sqrt()
    for name, parameter in model.named_parameters():
        after, old = parameter.view(3, HEADS, -1), before[name].view(3, HEADS, -1)
        torch.testing.assert_close(after[:2], old[:2] * factors[:, None])
        assert torch.equal(after[2], old[2])
        quiet = factors == 1
        assert torch.equal(after[:, quiet], old[:, quiet])


@torch.no_grad()
def test_the_language_model_s_heads_come_down_to_tau():
    torch.manual_seed(0)
    config = TransformerConfig(width=WIDTH, depth=2, head_dim=K, vocab_size=20, max_positions=8)
    model = config.build()
    for block in model.blocks:
        block.attention.qkv.weight *= 6
    tokens = torch.randint(20, (3, 8))
    clip = QKClip(model, 5.0, capped=False)
    with clip.watching():
        model(tokens)
    first = [largest.clone() for largest in clip.largest_H.values()]
    assert clip.clip() == sum(int((largest > 5.0).sum()) for largest in first) > 0
    with clip.watching():
        model(tokens)
    # The second block sees another input; the first one has its own logits, clipped.
    torch.testing.assert_close(next(iter(clip.largest_H.values())), first[0].clamp(max=5.0))


def test_a_model_without_queries_and_keys_is_refused():
    with pytest.raises(ValueError, match=r"^optimizer.qk_clip needs a model with an attention tap"):
        QKClip(nn.Sequential(nn.Linear(3, 3)), 1.0, capped=False)
