"""What is found in models of every kind by looking at them."""

import pytest
import torch
from plain_models import Gru, PlainLM
from torch import nn
from torchvision.models import resnet18, swin_t, vit_b_16

from foretune.models import TransformerConfig, ViTConfig
from foretune.models.nets.counts import count_module
from foretune.tuner.watch.discovery import first_tensor, logits_of, look_at


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_blocks_head_and_n_of_a_plain_model(depth):
    parts = look_at(PlainLM(depth=depth))
    assert [name for name, _ in parts.blocks] == [f"layers.{i}" for i in range(depth)]
    assert parts.head == "unembed"
    assert parts.n_params_total == sum(p.numel() for p in PlainLM(depth=depth).parameters())
    assert parts.n_params == parts.n_params_total - 2 * 32 * 32
    assert parts.n_params_at_work == parts.n_params + 32 * 32


@pytest.mark.parametrize("config", [TransformerConfig(width=16), TransformerConfig(depth=1)])
def test_n_of_our_own_models_is_that_of_their_ladder(config):
    model = config.build()
    assert look_at(model).n_params == count_module(model).n_params
    assert {tap.kind for tap in look_at(model).taps} == {"attention", "block_output", "logits"}


def test_an_image_model_of_ours_has_its_blocks():
    parts = look_at(ViTConfig().build())
    assert next(name for name, _ in parts.blocks) == "blocks.0"
    assert parts.head == "head"


def test_the_longest_list_of_alike_modules_is_the_blocks():
    layers = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))
    heads = (nn.Sequential(nn.Linear(4, 2)) for _ in range(2))
    stem = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU())
    parts = {"stem": stem, "layers": nn.Sequential(*layers), "heads": nn.ModuleList(heads)}
    found = look_at(nn.ModuleDict(parts)).blocks
    assert [name for name, _ in found] == ["layers.0", "layers.1", "layers.2"]


TORCHVISION = {
    "vit": (vit_b_16, "encoder.layers.encoder_layer_", 12, "heads.head"),
    "swin": (swin_t, "features.5.", 6, "head"),
    "resnet": (resnet18, "layer", 2, "fc"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_models_of_torchvision(name):
    build, prefix, count, head = TORCHVISION[name]
    with torch.device("meta"):
        parts = look_at(build())
    assert len(parts.blocks) == count
    assert all(path.startswith(prefix) for path, _ in parts.blocks)
    assert parts.head == head


def test_a_model_without_blocks_or_head():
    assert look_at(Gru()).blocks == ()
    assert look_at(nn.Conv2d(1, 2, 3)).head == ""
    assert look_at(nn.Conv2d(1, 2, 3)).n_params == 20


def test_wrappers_are_seen_through():
    model = PlainLM()
    around = look_at(torch.compile(model, backend="eager"))
    assert around.root is model
    assert around.compiled
    assert not look_at(model).compiled
    model.layers[1].compile(backend="eager")
    assert look_at(model).compiled


def test_a_shared_head_is_counted_once_and_outside():
    model = PlainLM()
    model.unembed.weight = model.tokens.weight
    parts = look_at(model)
    assert parts.n_params_total - parts.n_params == 32 * 32


X = torch.zeros(2, 3)


class Output:
    logits = X


@pytest.mark.parametrize(
    "output", [X, Output(), {"loss": X.sum(), "logits": X}, (X.sum(), X), [X], {"a": (X,)}]
)
def test_logits_are_found_in_what_a_model_returns(output):
    assert logits_of(output) is X


@pytest.mark.parametrize("output", [None, X.sum(), X.long(), "text", ()])
def test_what_holds_no_logits(output):
    assert logits_of(output) is None


def test_a_block_s_stream_is_the_first_tensor_of_floats():
    assert first_tensor((X.long(), (None, X))) is X
    assert first_tensor({"hidden": X}) is X
    assert first_tensor(3) is None
