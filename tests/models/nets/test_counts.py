"""Counts by formula against built models and against torch's own FLOP counter."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations, product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foretune.models import (
    ConvNetConfig,
    Counts,
    TorchvisionConfig,
    TransformerConfig,
    ViTConfig,
    count,
    count_module,
)
from foretune.models.nets.torchvision_nets import NETS

torch.set_num_threads(1)


def meeting(*axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """As few combinations as possible, greedily, in which any two values of two axes meet."""
    left = {
        ((i, a), (j, b))
        for (i, one), (j, other) in combinations(enumerate(axes), 2)
        for a, b in product(one, other)
    }
    chosen = []
    while left:
        best = max(product(*axes), key=lambda c: len(left & set(combinations(enumerate(c), 2))))
        left -= set(combinations(enumerate(best), 2))
        chosen.append(best)
    return chosen


LMS = [
    TransformerConfig(
        width=width, depth=depth, head_dim=head_dim, qk_norm=qk, vocab_size=50, max_positions=24
    )
    for width, depth, head_dim, qk in meeting((16, 32, 96), (1, 4), (8, 16), (False, True))
]
LLAMAS = [
    TransformerConfig(width=width, depth=2, norm="rmsnorm", mlp="swiglu", qk_norm=qk)
    for width, qk in product((16, 64), (False, True))
]
VITS = [
    ViTConfig(width=width, depth=depth, head_dim=8, patch_size=patch, channels=channels, qk_norm=qk)
    for width, depth, patch, channels, qk in meeting(
        (16, 96), (1, 4), (4, 8), (1, 3), (False, True)
    )
]
CONVNETS = [
    ConvNetConfig(width=width, depth=depth, image_size=side, channels=channels, classes=7)
    for side, width, depth, channels in meeting((8, 13, 32), (8, 24), (1, 3), (1, 3))
]
TORCHVISION = [
    TorchvisionConfig(name=name, width_multiplier=multiplier, image_size=side, channels=3)
    for name, multiplier, side in meeting(tuple(NETS), (0.1, 1.0), (8, 32))
]
ALL = [*LMS, *LLAMAS, *VITS, *CONVNETS, *TORCHVISION]


def name(config: Any) -> str:
    values = (getattr(config, field.name) for field in fields(config))
    return "-".join([config.kind, *map(str, values)])


@pytest.mark.parametrize("config", LMS, ids=name)
def test_n_of_an_lm_is_the_formula(config):
    width, depth = config.width, config.depth
    formula = 12 * width**2 * depth + (2 * depth + 1) * width
    counts = count(config)
    assert counts.n_params == formula + (2 * config.head_dim * depth if config.qk_norm else 0)
    assert counts.n_params_total == counts.n_params + 2 * width * config.vocab_size


@pytest.mark.parametrize("config", VITS, ids=name)
def test_n_of_a_vit_is_the_lm_s(config):
    lm = TransformerConfig(
        width=config.width, depth=config.depth, head_dim=config.head_dim, qk_norm=config.qk_norm
    )
    assert count(config).n_params == count(lm).n_params


@pytest.mark.parametrize("config", CONVNETS, ids=name)
def test_n_of_a_convnet_is_the_formula(config):
    width, depth = config.width, config.depth
    assert count(config).n_params == (378 * depth - 80) * width**2 + (28 * depth + 2) * width


@pytest.mark.parametrize("config", ALL, ids=name)
def test_counts_of_a_config_are_those_of_the_model_it_builds(config):
    with torch.device("meta"):
        model = config.build()
    counts = count(config)
    n = sum(p.numel() for k, p in model.named_parameters() if k.split(".")[0] not in OUTSIDE_N)
    total = sum(p.numel() for p in model.parameters())
    assert 0 < counts.n_params == n < total
    assert counts.n_params_total == total
    # fp32: weight, gradient, two moments.
    assert counts.state_bytes == 4 * 4 * total
    by_module = count_module(model)
    assert (by_module.n_params, by_module.n_params_total) == (n, total)
    assert by_module.state_bytes == counts.state_bytes


OUTSIDE_N = ("embedding", "patch_embedding", "position_embedding", "stem", "head")


@pytest.mark.parametrize("config", [*LMS, *VITS, *CONVNETS], ids=name)
def test_flops_of_a_step_equal_those_that_torch_counts(config):
    """Exactly: torch's counter, too, sees products and convolutions alone (no norms, GELU).

    On the meta device with the unfused attention, since the counter knows neither oneDNN's product
    nor leaves out what fused attention computes again on the way back.
    """
    batch = 2
    with torch.device("meta"):
        model, inputs = config.build(), example(config, batch)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(inputs)
        logits.sum().backward()
    places = logits.numel() // logits.shape[-1]
    assert counter.get_total_flops() == places * count(config).flops_per_token


@pytest.mark.parametrize("config", TORCHVISION, ids=name)
def test_flops_of_torchvision_s_nets_equal_those_that_torch_counts(config):
    """Forward, since torch's counter takes the way back of a depthwise convolution for a full
    one; there a step is three times that, less one pass of the stem.
    """
    with torch.device("meta"):
        model, inputs = config.build().eval(), example(config, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as stem_counter:
        model.stem(inputs)
    forward, stem = counter.get_total_flops(), stem_counter.get_total_flops()
    assert count(config).flops_per_token == (3 * forward - stem) / 2


def example(config: Any, batch: int) -> torch.Tensor:
    if isinstance(config, TransformerConfig):
        return torch.zeros(batch, config.max_positions, dtype=torch.long)
    return torch.zeros(batch, config.channels, config.image_size, config.image_size)


def test_counting_draws_no_random_numbers():
    before = torch.get_rng_state()
    for config in (ViTConfig(), ConvNetConfig(), TorchvisionConfig(image_size=9)):
        count(config)
    assert torch.equal(torch.get_rng_state(), before)


def test_counting_a_module_without_embedding_and_head_counts_all():
    assert count_module(nn.Linear(3, 4)) == Counts(
        n_params=16, n_params_total=16, flops_per_token=96.0, state_bytes=256
    )


def test_a_parameter_that_embedding_and_head_share_is_outside_n():
    model = nn.Module()
    model.token = nn.Embedding(5, 3)
    model.middle = nn.Linear(3, 3, bias=False)
    model.head = nn.Linear(3, 5, bias=False)
    model.head.weight = model.token.weight
    counts = count_module(model)
    assert (counts.n_params, counts.n_params_total) == (9, 24)
