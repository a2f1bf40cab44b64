"""Rungs of every ladder: what a size moves, and which sizes are refused."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch

from foretune.models import (
    ConvNetConfig,
    TorchvisionConfig,
    TransformerConfig,
    ViTConfig,
    at_size,
    count,
    has_ladder,
    size_of,
)
from foretune.models.blocks.block_config import AXES
from foretune.models.nets.ladder import check_rungs

torch.set_num_threads(1)


def name(config: Any) -> str:
    values = (getattr(config, field.name) for field in fields(config))
    return "-".join([config.kind, *map(str, values)])


CLIMB = (3, 9, 10, 100, 480)


@pytest.mark.parametrize(
    ("config", "rungs", "first"),
    [
        (ViTConfig(), range(16, 2000, 16), 100_000),
        (ViTConfig(depth=6, head_dim=32, channels=3, qk_norm=True), range(32, 2000, 32), 100_000),
        (ConvNetConfig(), range(8, 800, 8), 100_000),
        (ConvNetConfig(depth=3, channels=3, classes=100), range(8, 800, 8), 100_000),
        (TorchvisionConfig(name="mobilenet_v2"), CLIMB, 100_000),
        # The least that 8 channels give.
        (TorchvisionConfig(name="resnet18"), CLIMB, 180_000),
        (TorchvisionConfig(name="resnet34"), CLIMB, 340_000),
        (TorchvisionConfig(name="resnet50"), CLIMB, 380_000),
    ],
    ids=lambda value: name(value) if hasattr(value, "kind") else "",
)
def test_a_ladder_climbs_from_few_parameters_to_48_million(config, rungs, first):
    """Counted, not built; N never falls on the way up, and a step costs more."""
    counts = [count(at_size(config, size)) for size in rungs]
    ns = [c.n_params for c in counts]
    assert ns == sorted(ns)
    assert ns[0] <= first
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "sizes", "cure"),
    [
        (RESNET, (30, 41), "got 30 and 41, .* the nearest other sizes are 27 and 42."),
        (RESNET, (30, 8, 35), "got 30 and 35, .* the nearest other sizes are 27 and 42."),
        (RESNET, (42, 27, 30, 35), "got 30 and 35, .* the nearest other sizes are 13 and 56."),
        (RESNET, (12, 13), "got 12 and 13, .* the nearest other size is 14."),
        (MOBILENET, (1, 2), "got 1 and 2, which round to the same channels; the nearest other"),
    ],
)
def test_two_sizes_of_the_same_net_are_refused_with_the_nearest_others(config, sizes, cure):
    with pytest.raises(ValueError, match=f"^model.size must give another net each time, {cure}"):
        check_rungs(at_size(config, size) for size in sizes)


def test_sizes_of_different_nets_and_of_other_models_pass():
    check_rungs(at_size(RESNET, size) for size in (12, 24, 36, 50, 100))
    check_rungs([at_size(RESNET, 12), at_size(TorchvisionConfig(name="resnet34"), 13)])
    check_rungs([at_size(RESNET, 12), at_size(TorchvisionConfig(classes=7), 13), Own(width=7)])
    check_rungs(at_size(TransformerConfig(), size) for size in (16, 32, 16))


@pytest.mark.parametrize("config", [RESNET, MOBILENET], ids=name)
def test_equal_counts_are_equal_shapes(config):
    """What `check_rungs` rests on."""
    shapes = {}
    for size in range(11, 15):
        with torch.device("meta"):
            rung = at_size(config, size)
            built = [tuple(p.shape) for p in rung.build().parameters()]
        assert shapes.setdefault(count(rung), built) == built
    assert len(set(map(tuple, shapes.values()))) == len(shapes)
