"""Quantization as a config, and where it goes."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from foretune.models import TransformerConfig
from foretune.models.blocks.layers import Linear
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import Binary, Float8, Integer, Ternary
from foretune.models.quantization.layers import (
    QuantizedConv2d,
    QuantizedEmbedding,
    QuantizedLinear,
    quantized_layers,
)
from foretune.models.quantization.replace import head_of, quantize

torch.set_num_threads(1)

TERNARY = Quantization(format="ternary")


class TinyViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embedding = nn.Sequential(nn.Flatten(), Linear(16, 8))
        self.block = Linear(8, 8)
        self.head = nn.Sequential(nn.LayerNorm(8), Linear(8, 8), nn.GELU(), Linear(8, 3))


class TinyConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.out = nn.Linear(8, 10)


def names(model: nn.Module, config: Quantization = TERNARY, **options) -> set[str]:
    return set(quantize(model, config, **options))


def test_the_default_leaves_embedding_head_and_first_convolution():
    lm = TransformerConfig(width=16, depth=2).build()
    layers = ("attention.qkv", "attention.attention_out", "mlp.mlp_in", "mlp.mlp_out")
    assert names(lm) == {f"blocks.{i}.{layer}" for i in range(2) for layer in layers}
    assert isinstance(lm.embedding, nn.Embedding)
    assert isinstance(lm.head, Linear)
    assert names(TinyConvNet()) == {"blocks.0", "blocks.2"}
    assert names(TinyViT()) == {"block", "head.1"}


def test_what_the_default_leaves_can_be_asked_for():
    lm = TransformerConfig(width=16, depth=1).build()
    added = names(lm, Quantization(format="ternary", embedding=True, head=True))
    assert {"embedding", "head"} < added
    assert isinstance(lm.embedding, QuantizedEmbedding)
    config = Quantization(format="ternary", first_conv=True)
    assert names(TinyConvNet(), config) == {"stem", "blocks.0", "blocks.2"}
    assert names(TinyViT(), config) == {"patch_embedding.1", "block", "head.1"}
    config = Quantization(format="ternary", head=True)
    assert names(TinyConvNet(), config) == {"blocks.0", "blocks.2", "out"}


@pytest.mark.parametrize(
    ("build", "head", "first"),
    [(resnet18, "fc", "conv1"), (mobilenet_v2, "classifier.1", "features.0.0")],
)
def test_torchvision_s_models(build, head, first):
    model = build(num_classes=10)
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert head_of(model) == head
    assert names(model) == layers - {head, first}
    model.eval()(torch.randn(2, 3, 32, 32)).sum().backward()


def test_a_filter_decides_alone():
    model = TinyConvNet()
    assert names(model, where=lambda n, m: n in ("stem", "out")) == {"stem", "out"}
    assert isinstance(model.stem, QuantizedConv2d)
    assert isinstance(model.out, QuantizedLinear)
    assert isinstance(model.blocks[0], nn.Conv2d)


def test_weights_stay_the_same_objects_under_the_same_names():
    model = TinyConvNet().eval()
    model.stem.weight.requires_grad_(False)
    before = dict(model.named_parameters())
    values = {n: p.clone() for n, p in before.items()}
    quantize(model, Quantization(format="int4", first_conv=True, head=True))
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, parameter in after.items():
        assert parameter is before[name]
        assert torch.equal(parameter, values[name])
    assert not any(m.training for m in model.modules())
    assert not model.stem.weight.requires_grad


def test_a_shared_layer_is_replaced_wherever_it_stands():
    layer = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer), "head": nn.Linear(4, 2)})
    assert names(model) == {"a"}
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], QuantizedLinear)


def test_tied_weights_stay_tied():
    model = TransformerConfig(width=16, depth=1).build()
    model.head.weight = model.embedding.weight
    quantize(model, Quantization(format="ternary", embedding=True, head=True))
    assert model.head.weight is model.embedding.weight


def test_a_second_call_takes_what_is_left():
    model = TinyConvNet()
    assert names(model, where=lambda n, m: n == "blocks.0") == {"blocks.0"}
    assert names(model, Quantization(format="int8")) == {"blocks.2"}
    with pytest.raises(ValueError, match="at least one layer"):
        quantize(model, TERNARY)


def test_full_precision_changes_nothing_and_the_control_adds_norms_alone():
    model = TinyConvNet()
    assert quantize(model, Quantization()) == ()
    assert not quantized_layers(model)
    assert names(model, Quantization(norm=True)) == {"blocks.0", "blocks.2"}
    assert all(layer.rule.weights is None for layer in quantized_layers(model).values())
    lm = TransformerConfig(width=16, depth=1).build()
    assert "embedding" not in names(lm, Quantization(norm=True, embedding=True))


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (nn.Sequential(nn.ReLU()), None, "at least one layer, got none of the 0 "),
        (nn.Sequential(nn.Linear(2, 2)), None, "head=True takes a head"),
        (TinyConvNet(), lambda n, m: False, "`where` must take one"),
        (nn.Linear(2, 2), None, "wrap it in torch.nn.Sequential"),
        (nn.Sequential(nn.Conv1d(2, 2, 1)), lambda n, m: True, "got 0, a Conv1d"),
        (nn.Sequential(nn.LSTM(2, 2)), lambda n, m: n == "0", "a LSTM; leave it out"),
        (nn.Sequential(nn.Embedding(4, 2, max_norm=1.0)), lambda n, m: True, "max_norm"),
    ],
)
def test_impossible_places_are_refused_in_a_sentence(model, where, message):
    with pytest.raises(ValueError, match=message):
        quantize(model, TERNARY, where=where)


def test_a_group_that_divides_no_row_is_refused_and_the_model_left_alone():
    model = TinyConvNet()
    config = Quantization(format="ternary", granularity="group", group_size=32, first_conv=True)
    with pytest.raises(ValueError, match=r"got 32 and 27 in stem; 27 can be divided by 1, 3, 9"):
        quantize(model, config)
    assert not quantized_layers(model)


def test_layers_with_hooks_or_parametrizations_are_not_taken_quietly():
    model = TinyConvNet()
    model.blocks[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"without hooks, got blocks\.0"):
        quantize(model, TERNARY)


@pytest.mark.parametrize(
    ("config", "weights", "activations"),
    [
        (Quantization(), None, None),
        (Quantization(norm=True), None, None),
        (TERNARY, Ternary(scale_dtype="float16"), Integer(granularity="row")),
        (
            Quantization(
                format="ternary",
                scale="median",
                granularity="group",
                group_size=8,
                scale_dtype="float32",
            ),
            Ternary(scale="median", granularity="group", group_size=8),
            Integer(granularity="row"),
        ),
        (Quantization(format="binary", activations="off"), Binary(scale_dtype="float16"), None),
        (Quantization(format="int4", activations="tensor"), Integer(bits=4), Integer()),
        (Quantization(format="fp8"), Float8(), Float8(granularity="row")),
    ],
)
def test_a_config_names_the_formats_of_weights_and_inputs(config, weights, activations):
    assert config.weight_format() == weights
    assert config.activation_format() == activations


def test_strength_starts_late_and_rises_linearly_to_its_end():
    config = Quantization(format="ternary", start=0.3, strength_warmup=0.2, strength=0.8)
    strengths = [config.strength_at(step, 10) for step in range(11)]
    assert strengths == pytest.approx([0, 0, 0, 0, 0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert [TERNARY.strength_at(step, 10) for step in (0, 10)] == [1, 1]
    assert Quantization(norm=True).strength_at(5, 10) == 0
    late = Quantization(format="int8", start=0.1)
    assert [late.strength_at(step, 30) for step in (2, 3)] == [0, 1]
    # 0.29 x 100 is 28.999999999999996.
    assert Quantization(format="int8", start=0.29).strength_at(28, 100) == 0
    assert Quantization(format="int8", start=0.5, strength_warmup=0.5).strength_at(8, 8) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "tern"}, "quantization.format must be one of none, ternary"),
        ({"scale": "max"}, "quantization.scale must be one of mean, median"),
        ({"format": "int8", "scale": "median"}, "use scale=mean"),
        ({"granularity": "channel"}, "quantization.granularity must be one of"),
        ({"activations": True}, "quantization.activations must be one of token"),
        ({"group_size": 0}, "quantization.group_size must be a whole number"),
        ({"strength": 1.5}, "quantization.strength must be a number from 0 to 1, got 1.5"),
        ({"start": float("nan")}, "quantization.start must be a number"),
        ({"strength_warmup": "0.1"}, "quantization.strength_warmup must be a number"),
        ({"start": 0.7, "strength_warmup": 0.4}, "add up to 1 at most"),
        ({"norm": 1}, "quantization.norm must be True or False"),
    ],
)
def test_impossible_configs_are_refused_in_a_sentence(fields, message):
    with pytest.raises(ValueError, match=message):
        Quantization(**fields)
