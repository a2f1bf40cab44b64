"""Counts by formula against built models and against torch's own FLOP counter."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models import Counts, TransformerConfig, at_size, count, count_module, size_of

torch.set_num_threads(1)

GRID = [
    TransformerConfig(
        width=width, depth=depth, head_dim=head_dim, qk_norm=qk, vocab_size=50, max_positions=24
    )
    for width, depth, head_dim, qk in product((16, 32, 96), (1, 4), (8, 16), (False, True))
]


def name(config: TransformerConfig) -> str:
    return f"{config.width}x{config.depth}-k{config.head_dim}-qk{config.qk_norm}"


@pytest.mark.parametrize("config", GRID, ids=name)
def test_counts_of_a_config_are_those_of_the_model_it_builds(config):
    with torch.device("meta"):
        model = config.build()
    width, depth = config.width, config.depth
    counts = count(config)
    n = sum(p.numel() for k, p in model.named_parameters() if k.split(".")[0] not in OUTSIDE_N)
    total = sum(p.numel() for p in model.parameters())
    formula = 12 * width**2 * depth + (2 * depth + 1) * width
    assert counts.n_params == n == formula + (2 * config.head_dim * depth if config.qk_norm else 0)
    assert counts.n_params_total == total == n + 2 * width * config.vocab_size
    # fp32: weight, gradient, two moments.
    assert counts.state_bytes == 4 * 4 * total


OUTSIDE_N = ("embedding", "head")


@pytest.mark.parametrize("config", GRID, ids=name)
def test_flops_equal_those_that_torch_counts(config):
    """Exactly: torch's counter, too, sees matrix products alone (no norms, softmax, GELU).

    On the meta device with the unfused attention, since the counter knows neither oneDNN's product
    nor leaves out what fused attention computes again on the way back.
    """
    batch, positions = 2, config.max_positions
    with torch.device("meta"):
        model = config.build()
        inputs = torch.zeros(batch, positions, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model(inputs)
        forward = counter.get_total_flops()
        logits.sum().backward()
    step = counter.get_total_flops()
    assert step == batch * positions * count(config).flops_per_token
    assert step == 3 * forward


def test_counting_a_module_agrees_on_parameters_with_the_formula():
    for config in GRID:
        with torch.device("meta"):
            counts = count_module(config.build())
        assert counts.n_params == count(config).n_params
        assert counts.n_params_total == count(config).n_params_total
        assert counts.state_bytes == count(config).state_bytes


def test_counting_a_module_without_embedding_and_head_counts_all():
    assert count_module(nn.Linear(3, 4)) == Counts(
        n_params=16, n_params_total=16, flops_per_token=96.0, state_bytes=256
    )


def test_the_dial_moves_width_alone():
    config = TransformerConfig(width=16, depth=5, head_dim=8, qk_norm=True, vocab_size=77)
    for size in (8, 64, 256):
        rung = at_size(config, size)
        assert size_of(rung) == rung.width == size
        assert (rung.depth, rung.head_dim, rung.qk_norm, rung.vocab_size) == (5, 8, True, 77)
    assert at_size(at_size(config, 64), 16) == config


def test_a_size_between_rungs_is_refused_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"model.width must be a multiple .* 64 and 80"):
        at_size(TransformerConfig(head_dim=16), 70)


def test_a_model_without_the_dial_stands_on_rung_zero():
    assert size_of(object()) == 0
