"""Telemetry of grids, and the trits that the export takes."""

import pytest
import torch
from torch import nn

from foretune.models import TransformerConfig
from foretune.models.blocks.layers import Linear
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import FORMATS
from foretune.models.quantization.layers import quantized_layers, refresh
from foretune.models.quantization.replace import quantize
from foretune.models.quantization.scales import dequantize
from foretune.models.quantization.statistics import (
    TritFlips,
    quantization_statistics,
    ternary_layers,
    watching,
)
from foretune.tuner.optim.flat_parameters import FlatParameters

torch.set_num_threads(1)

TERNARY = Quantization(format="ternary")


def lm(config: Quantization = TERNARY) -> nn.Module:
    torch.manual_seed(0)
    model = TransformerConfig(width=32, depth=2).build()
    quantize(model, config)
    return model


TOKENS = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(0))


def test_columns_are_those_of_the_contract_over_all_and_by_kind():
    model = lm()
    with watching(model):
        model(TOKENS)
    columns = quantization_statistics(model)
    kinds = ("qkv", "attention_out", "mlp_in", "mlp_out")
    expected = ("zero_fraction", "weight_scale", "dead_rows", "activation_clipped")
    assert set(columns) == {*expected, *(f"{c}_{k}" for c in expected for k in kinds)}
    assert all(isinstance(v, float) for v in columns.values())


def test_statistics_count_what_they_say():
    model = nn.ModuleDict({"mlp": Linear(4, 4), "proj": Linear(4, 2)})
    quantize(model, TERNARY, where=lambda n, m: True)
    with torch.no_grad():
        model["mlp"].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4, [1, -1, 1, 0], [0.0] * 4]))
        model["proj"].weight.fill_(-2.0)
    columns = quantization_statistics(model)
    assert columns["zero_fraction_mlp"] == 5 / 16
    assert columns["zero_fraction_proj"] == 0
    assert columns["zero_fraction"] == 5 / 24
    assert columns["dead_rows_mlp"] == 1 / 4
    assert columns["dead_rows"] == pytest.approx(1 / 6)
    assert columns["weight_scale_mlp"] == 11 / 16
    assert columns["weight_scale"] == pytest.approx((11 / 16 + 2) / 2)
    assert "activation_clipped" not in columns


def test_clipped_inputs_are_counted_only_while_watched_and_over_micro_batches():
    model = nn.Sequential(Linear(4, 8))
    quantize(model, Quantization(format="ternary", head=True))
    one_of_four = torch.tensor([[1.0, 0.1, 0.2, -0.3]])
    all_of_four = torch.tensor([[1.0, -1.0, 1.0, 1.0]])
    with watching(model):
        model(one_of_four)
        model(all_of_four)
    model(all_of_four)
    assert quantization_statistics(model)["activation_clipped"] == pytest.approx((1 / 4 + 1) / 2)
    with watching(model):
        model(all_of_four)
    assert quantization_statistics(model)["activation_clipped"] == 1


def test_full_precision_and_the_control_have_no_columns():
    assert quantization_statistics(TransformerConfig(width=16).build()) == {}
    assert quantization_statistics(lm(Quantization(norm=True))) == {}
    assert TritFlips().read(lm(Quantization(norm=True))) == {}


def test_flips_are_the_share_of_levels_that_changed_since_the_last_reading():
    model = nn.ModuleDict({"a": nn.Sequential(Linear(4, 4)), "b": Linear(4, 4)})
    quantize(model, TERNARY, where=lambda n, m: True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    flat, flips = FlatParameters(model), TritFlips()
    assert flips.read(model) == {}
    assert flips.read(model)["trit_flip_rate"] == 0
    flat.values[:2] = torch.tensor([-1.0, 0.0])
    rates = flips.read(model)
    assert rates["trit_flip_rate"] == 2 / 32
    assert rates["trit_flip_rate_a"] == 2 / 16
    assert rates["trit_flip_rate_b"] == 0
    assert flips.read(model)["trit_flip_rate"] == 0


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_has_its_columns(form):
    model = lm(Quantization(format=form, embedding=True))
    flips = TritFlips()
    flips.read(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    columns = quantization_statistics(model) | flips.read(model)
    assert 0 <= columns["zero_fraction"] <= 1
    assert columns["trit_flip_rate"] >= 0.9 - columns["zero_fraction"]
    assert columns["zero_fraction_embedding"] >= 0


def test_statistics_read_the_grid_whatever_the_strength():
    model = lm()
    full = quantization_statistics(model)
    for strength in (0.0, 0.5):
        refresh(model, strength)
        assert quantization_statistics(model) == full


@pytest.mark.parametrize("config", [
    TERNARY,
    Quantization(format="ternary", scale="median", granularity="row"),
    Quantization(format="ternary", granularity="group", group_size=8),
    Quantization(format="binary"),
], ids=repr)  # fmt: skip
def test_exported_trits_times_scale_are_the_weights_that_compute(config):
    model = lm(config)
    exported = ternary_layers(model)
    layers = quantized_layers(model)
    assert exported.keys() == layers.keys()
    for name, (levels, scale) in exported.items():
        assert levels.dtype == torch.int8
        assert scale.dtype == torch.float32
        assert levels.abs().max() == 1
        x = torch.randn(4, layers[name].in_features)
        expected = layers[name].rule.activations(x) @ dequantize(levels, scale).t()
        torch.testing.assert_close(layers[name](x), expected, rtol=1e-5, atol=1e-5)


def test_export_ignores_a_grid_that_is_out_of_date():
    model = lm()
    flat = FlatParameters(model)
    refresh(model, 1.0)
    before = ternary_layers(model)
    flat.values.neg_()
    for name, (levels, scale) in ternary_layers(model).items():
        assert torch.equal(levels, -before[name].levels)
        assert torch.equal(scale, before[name].scale)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Quantization(), "got none"),
        (Quantization(norm=True), "got none"),
        (Quantization(format="int8"), "format=ternary or binary, got Integer"),
        (Quantization(format="ternary", strength=0.5), "strength=1, got 0.5"),
    ],
)
def test_what_is_not_ternary_is_not_exported(config, message):
    with pytest.raises(ValueError, match=message):
        ternary_layers(lm(config))


def test_weights_that_are_not_finite_are_not_exported():
    model = lm()
    with torch.no_grad():
        model.blocks[1].mlp.mlp_in.weight[3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"finite weights, got nan or inf in blocks.1.mlp.mlp_in"):
        ternary_layers(model)
