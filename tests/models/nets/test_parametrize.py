"""Parametrizations: the rule of every parameter by hand, initial values, branches.

Shapes: B samples, T positions, N = B T rows, D width.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import built, samples

from foretune.models import Parametrization, Rule, TransformerConfig, ViTConfig, parametrize
from foretune.models.export.save import export_model
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.replace import quantize

torch.set_num_threads(1)

LM = TransformerConfig(width=64, depth=4, vocab_size=50, max_positions=8)
LLAMA = replace(LM, norm="rmsnorm", mlp="swiglu", qk_norm=True)
VIT = ViTConfig(width=64, depth=4, image_size=8, v_norm=True, sigma_reparam=True)
CONFIGS = {"gelu": LM, "swiglu": LLAMA, "vit": VIT}
MUP = ("mup-simple", "mup-intermediate", "mup-full")
LINEAR = {"qkv", "attention_out", "mlp_in", "mlp_out", "mlp_gate", "head"}
OTHERS = {"embedding", "patch_embedding", "attention_norm", "mlp_norm", "final_norm", "q_norm",
          "k_norm", "v_norm", "sigma_gain"}  # fmt: skip
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def rules(config: Any, **fields: Any) -> dict[str, Rule]:
    return parametrize(built(config), config, Parametrization(**fields))


@each_config
@pytest.mark.parametrize("name", MUP)
def test_every_parameter_has_the_rule_of_the_table(config, name):
    """Width 64 is four times the base: a quarter for linear layers, nothing for all others."""
    found = rules(config, name=name, base_width=16)
    seen = set()
    for parameter, _ in built(config).named_parameters():
        kind = parameter.removesuffix(".weight").split(".")[-1]
        if kind in LINEAR:
            assert found.pop(parameter) == Rule(lr=0.25), parameter
        else:
            assert kind in OTHERS or parameter == "position_embedding"
        seen.add(kind)
    assert found == {}
    assert len(seen & LINEAR) == (6 if config is LLAMA else 5)


def test_the_table_of_a_language_model_written_out():
    config = TransformerConfig(width=32, depth=1, qk_norm=True)
    quarter = Rule(lr=0.25)
    assert rules(config, name="mup-simple", base_width=8) == {
        "blocks.0.attention.qkv.weight": quarter,
        "blocks.0.attention.attention_out.weight": quarter,
        "blocks.0.mlp.mlp_in.weight": quarter,
        "blocks.0.mlp.mlp_out.weight": quarter,
        "head.weight": quarter,
    }
    twice = rules(config, name="mup-simple", base_width=64)
    assert set(twice.values()) == {Rule(lr=2.0)}
    assert rules(config) == {}


@each_config
def test_simple_changes_no_weight_and_intermediate_the_head_alone(config):
    plain = built(config).state_dict()
    for name, factor in (("mup-simple", 1.0), ("mup-intermediate", 0.5)):
        model = built(config)
        parametrize(model, config, Parametrization(name=name, base_width=16))
        for key, value in model.state_dict().items():
            assert torch.equal(value, plain[key] * (factor if key == "head.weight" else 1)), key


def test_the_head_starts_with_the_root_of_the_base_over_its_inputs():
    config = TransformerConfig(width=256, depth=1, vocab_size=256)
    model = built(config)
    parametrize(model, config, Parametrization(name="mup-intermediate", base_width=64))
    assert float(model.head.weight.detach().std()) == pytest.approx(64**0.5 / 256, rel=0.01)
    assert float(model.blocks[0].mlp.mlp_in.weight.detach().std()) == pytest.approx(
        1 / 16, rel=0.02
    )


@each_config
def test_full_is_intermediate_with_the_config_s_own_scale_and_queries(config):
    model, other = built(config), built(replace(config, attention_scale="linear", zero_query=True))
    found = parametrize(model, config, Parametrization(name="mup-full"))
    assert found == parametrize(other, other.config, Parametrization(name="mup-intermediate"))
    state = other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for block in model.blocks:
        assert not block.attention.qkv.weight[:64].any()
        assert block.attention.tap.scale == 1 / 16
        with torch.no_grad():
            block.attention.qkv.weight[:64].normal_()  # So that the scale shows.
    other.load_state_dict(model.state_dict())
    x = samples(config)
    assert torch.equal(model(x), other(x))
    plain = built(config)
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(model(x), plain(x), atol=1e-4)


@each_config
@pytest.mark.parametrize("name", ["standard", "mup-simple", "mup-intermediate"])
def test_at_the_base_nothing_changes(config, name):
    model, plain, x = built(config), built(config), samples(config)
    here = Parametrization(name=name, base_width=64, base_depth=4)
    assert parametrize(model, config, here) == {}
    assert torch.equal(model(x), plain(x))
    state = plain.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@each_config
@pytest.mark.parametrize("placement", ["pre", "post", "reordered"])
def test_depth_scales_both_branches_of_every_block(config, placement):
    config = replace(config, norm_placement=placement)
    model = built(config).eval()
    parametrize(model, config, Parametrization(base_depth=1))
    x_ND = torch.randn(16, 64)
    for block in model.blocks:
        a, m = block.attention_norm, block.mlp_norm
        with torch.no_grad():
            got = block(x_ND, 2)
            if placement == "pre":
                x = x_ND + 0.25 * block.attention(a(x_ND), 2)
                x = x + 0.25 * block.mlp(m(x))
            elif placement == "post":
                x = a(x_ND + 0.25 * block.attention(x_ND, 2))
                x = m(x + 0.25 * block.mlp(x))
            else:
                x = x_ND + 0.25 * a(block.attention(x_ND, 2))
                x = x + 0.25 * m(block.mlp(x))
        torch.testing.assert_close(got, x, rtol=0, atol=1e-5)


@each_config
def test_depth_scales_the_epsilon_of_the_blocks_parameters_alone(config):
    names = [n for n, _ in built(config).named_parameters()]
    assert rules(config, base_depth=1) == {
        n: Rule(epsilon=0.25) for n in names if n.startswith("blocks.")
    }
    both = rules(config, name="mup-simple", base_width=16, base_depth=8)
    assert both["blocks.3.mlp.mlp_out.weight"] == Rule(lr=0.25, epsilon=2.0)
    assert both["blocks.3.mlp_norm.weight"] == Rule(epsilon=2.0)
    assert both["head.weight"] == Rule(lr=0.25)
    assert "final_norm.weight" not in both


@pytest.mark.parametrize("config", [LM, LLAMA], ids=["gelu", "swiglu"])
def test_quantizing_before_or_after_makes_no_difference(config):
    ternary = Quantization(format="ternary", norm=True, head=True)
    asked = Parametrization(name="mup-full", base_width=16, base_depth=2)
    before, after = built(config), built(config)
    quantize(before, ternary)
    first = parametrize(before, config, asked)
    second = parametrize(after, config, asked)
    quantize(after, ternary)
    assert first == second
    assert len(first) > 10
    state, x = after.state_dict(), samples(config)
    for name, value in before.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(before(x), after(x))


def test_a_step_moves_the_logits_of_wide_models_less_than_without_mup():
    """One step of sign descent, which Adam's first is, at eight times the base."""

    def moved(width: int, name: str) -> float:
        config = TransformerConfig(width=width, depth=1, vocab_size=50, max_positions=8)
        model, x = built(config), samples(config)
        found = parametrize(model, config, Parametrization(name=name, base_width=16))
        before = model(x)
        F.cross_entropy(before.flatten(0, 1), x.flatten()).backward()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter -= 0.01 * found.get(key, Rule()).lr * parameter.grad.sign()
            return float((model(x) - before).square().mean().sqrt())

    base = moved(16, "standard")
    assert moved(16, "mup-simple") == base
    assert moved(128, "standard") > 3 * base
    assert moved(128, "mup-simple") < 2 * base


@pytest.mark.parametrize("format", ["safetensors", "gguf"])
@pytest.mark.parametrize("fields", [{"name": "mup-full"}, {"base_depth": 1}], ids=["full", "depth"])
def test_factors_that_no_file_would_hold_are_refused_at_export(fields, format, tmp_path):
    config, ternary = replace(LLAMA, qk_norm=False), Quantization(format="ternary")
    model = built(config)
    parametrize(model, config, Parametrization(**fields))
    quantize(model, ternary)
    with pytest.raises(ValueError, match=r"factors that its config builds, got blocks\.0\."):
        export_model(tmp_path / f"m.{format}", model, config, ternary, format=format)
    assert not any(tmp_path.iterdir())
