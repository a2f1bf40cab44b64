"""Counts by formula against built models and against torch's own FLOP counter."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models import (
    ConvNetConfig,
    Counts,
    TorchvisionConfig,
    TransformerConfig,
    ViTConfig,
    at_size,
    count,
    count_module,
    has_ladder,
    size_of,
)
from models.block_config import AXES
from models.ladder import check_rungs
from models.torchvision_nets import NETS

torch.set_num_threads(1)

LMS = [
    TransformerConfig(
        width=width, depth=depth, head_dim=head_dim, qk_norm=qk, vocab_size=50, max_positions=24
    )
    for width, depth, head_dim, qk in product((16, 32, 96), (1, 4), (8, 16), (False, True))
]
LLAMAS = [
    TransformerConfig(width=width, depth=2, norm="rmsnorm", mlp="swiglu", qk_norm=qk)
    for width, qk in product((16, 64), (False, True))
]
VITS = [
    ViTConfig(width=width, depth=depth, head_dim=8, patch_size=patch, channels=channels, qk_norm=qk)
    for width, depth, patch, channels, qk in product(
        (16, 96), (1, 4), (4, 8), (1, 3), (False, True)
    )
]
CONVNETS = [
    ConvNetConfig(width=width, depth=depth, image_size=side, channels=channels, classes=7)
    for width, depth, side, channels in product((8, 24), (1, 3), (8, 13, 32), (1, 3))
]
TORCHVISION = [
    TorchvisionConfig(name=name, width_multiplier=multiplier, image_size=side, channels=3)
    for name, multiplier, side in product(NETS, (0.1, 1.0), (8, 32))
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


@pytest.mark.parametrize(
    ("config", "rungs"),
    [
        (ViTConfig(), range(16, 2000, 16)),
        (ViTConfig(depth=6, head_dim=32, channels=3, qk_norm=True), range(32, 2000, 32)),
        (ConvNetConfig(), range(8, 800, 8)),
        (ConvNetConfig(depth=3, channels=3, classes=100), range(8, 800, 8)),
        *((TorchvisionConfig(name=net), (3, 5, 6, 9, 10, 50, 100, 150, 210, 480)) for net in NETS),
    ],
    ids=lambda value: name(value) if hasattr(value, "kind") else "",
)
def test_a_ladder_climbs_from_100k_to_48m_parameters(config, rungs):
    """Counted, not built; N never falls on the way up, and a step costs more."""
    counts = [count(at_size(config, size)) for size in rungs]
    ns = [c.n_params for c in counts]
    assert ns == sorted(ns)
    assert ns[0] <= 100_000
    assert ns[-1] >= 48_000_000
    flops = [c.flops_per_token for c in counts]
    assert flops == sorted(flops)


def test_the_dial_moves_width_alone():
    config = TransformerConfig(width=16, depth=5, head_dim=8, qk_norm=True, vocab_size=77)
    for size in (8, 64, 256):
        rung = at_size(config, size)
        assert size_of(rung) == rung.width == size
        assert (rung.depth, rung.head_dim, rung.qk_norm, rung.vocab_size) == (5, 8, True, 77)
    assert at_size(at_size(config, 64), 16) == config


@pytest.mark.parametrize("config", [TransformerConfig(head_dim=8), ViTConfig(head_dim=8)])
@pytest.mark.parametrize("ladder", AXES)
def test_every_ladder_moves_its_own_axes_and_keeps_the_head_dim(config, ladder):
    config = replace(config, ladder=ladder)
    for size in (8, 16, 48):
        rung = at_size(config, size)
        width, depth = {"width": (size, 3), "depth": (64, size), "joint": (size, size // 8)}[ladder]
        assert rung == replace(config, width=width, depth=depth)
        assert size_of(rung) == size
        assert at_size(rung, size) == rung
    counts = [count(at_size(config, size)) for size in range(8, 200, 8)]
    for name in ("n_params", "n_params_total", "flops_per_token"):
        values = [getattr(c, name) for c in counts]
        assert values == sorted(set(values))


def test_a_joint_rung_has_as_many_blocks_as_heads():
    config = TransformerConfig(ladder="joint")
    shapes = {
        size: (rung.heads, rung.depth) for size in (16, 32, 64) if (rung := at_size(config, size))
    }
    assert shapes == {16: (1, 1), 32: (2, 2), 64: (4, 4)}


@pytest.mark.parametrize(
    ("ladder", "size", "sentence"),
    [
        ("depth", 0, "model.depth must be a whole number from 1 up, got 0"),
        ("joint", 40, "model.width must be a multiple .* the nearest widths are 32 and 48"),
        ("joint", 8, "the nearest width is 16"),
        ("joint", 0, "model.width must be a whole number from 1 up, got 0"),
    ],
)
def test_a_rung_of_another_ladder_that_is_not_there_is_refused(ladder, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        at_size(TransformerConfig(ladder=ladder), size)


def test_a_size_between_rungs_is_refused_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"model.width must be a multiple .* 64 and 80"):
        at_size(TransformerConfig(head_dim=16), 70)


def test_a_model_without_the_dial_stands_on_rung_zero():
    assert size_of(object()) == 0
    assert size_of(Own(width=7)) == 7
    assert not has_ladder(Own(width=7))


@dataclass(frozen=True)
class Own:
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(TransformerConfig):
    extra: int = 1


def test_a_config_derived_from_one_with_a_ladder_climbs_it():
    rung = at_size(Derived(extra=5), 32)
    assert rung == Derived(width=32, extra=5)
    assert (has_ladder(rung), size_of(rung)) == (True, 32)


@pytest.mark.parametrize("ask", [count, lambda config: at_size(config, 8)])
def test_a_config_without_a_ladder_is_refused_by_name(ask: Callable[[object], object]):
    with pytest.raises(
        ValueError, match=r"a ladder \(TransformerConfig, .*\), got Own; set its own"
    ):
        ask(Own(width=7))


@pytest.mark.parametrize(
    ("config", "size", "sentence"),
    [
        (ViTConfig(), 40, "the nearest widths are 32 and 48."),
        (ConvNetConfig(), 12, "the nearest widths are 8 and 16."),
        (TorchvisionConfig(), 0, "from 0.01 up, got 0.0; write it like 1.5."),
    ],
)
def test_other_ladders_refuse_a_size_between_rungs(config, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        at_size(config, size)


RESNET, MOBILENET = TorchvisionConfig(), TorchvisionConfig(name="mobilenet_v2")


@pytest.mark.parametrize(
    ("config", "sizes", "cure"),
    [
        (RESNET, (12, 13), "got 12 and 13, .* the nearest other sizes are 11 and 14."),
        (RESNET, (24, 8, 23), "got 24 and 23, .* the nearest other sizes are 22 and 25."),
        (RESNET, (11, 12, 13, 14), "got 12 and 13, .* the nearest other sizes are 10 and 15."),
        (RESNET, (1, 2), "got 1 and 2, .* the nearest other size is 3."),
        (MOBILENET, (1, 2), "got 1 and 2, which round to the same channels; the nearest other"),
    ],
)
def test_two_sizes_of_the_same_net_are_refused_with_the_nearest_others(config, sizes, cure):
    with pytest.raises(ValueError, match=f"^model.size must give another net each time, {cure}"):
        check_rungs(at_size(config, size) for size in sizes)


def test_sizes_of_different_nets_and_of_other_models_pass():
    check_rungs(at_size(RESNET, size) for size in (6, 12, 24, 50, 100))
    check_rungs([at_size(RESNET, 12), at_size(TorchvisionConfig(name="resnet34"), 13)])
    check_rungs([at_size(RESNET, 12), at_size(TorchvisionConfig(classes=7), 13), Own(width=7)])
    check_rungs(at_size(TransformerConfig(), size) for size in (16, 32, 16))


@pytest.mark.parametrize("config", [RESNET, MOBILENET], ids=name)
def test_equal_counts_are_equal_shapes(config):
    """What `check_rungs` rests on."""
    shapes = {}
    for size in range(9, 17):
        with torch.device("meta"):
            rung = at_size(config, size)
            built = [tuple(p.shape) for p in rung.build().parameters()]
        assert shapes.setdefault(count(rung), built) == built
    assert len(set(map(tuple, shapes.values()))) == len(shapes)
