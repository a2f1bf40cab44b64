"""Ternary weights beside the mechanisms of a block, and where that is refused."""

from typing import Any

import pytest
import torch
from small_models import built, samples

from foretune.models import TransformerConfig, ViTConfig
from foretune.models.export.save import export_model, load_model
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.layers import quantized_layers, refresh
from foretune.models.quantization.replace import quantize

torch.set_num_threads(1)

WEIGHTS = Quantization(format="ternary", activations="off")
KINDS: dict[str, Any] = {
    "lm": lambda **fields: TransformerConfig(
        width=16, depth=2, vocab_size=11, max_positions=8, **fields
    ),
    "vit": lambda **fields: ViTConfig(width=16, depth=2, image_size=8, **fields),
}
FIELDS: list[dict[str, Any]] = [
    {"qk_norm": True, "qk_norm_span": "width", "v_norm": True, "norm_placement": "reordered"},
    {"attention": "relu2", "kappa": 2.0, "norm_placement": "post"},
    {"attention_softcap": 1.0, "logit_softcap": 2.0, "attention_scale": "linear"},
    {"zero_query": True, "qk_norm": True},
]
each = pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "-".join(fields))
both = pytest.mark.parametrize("kind", KINDS)


@both
@each
def test_a_ternary_model_is_the_plain_one_with_ternary_weights(kind, fields):
    config = KINDS[kind](**fields)
    model, plain, x = built(config).eval(), built(config).eval(), samples(config)
    names = quantize(model, WEIGHTS)
    assert len(names) == 8
    layers = quantized_layers(model)
    with torch.no_grad():
        for name in names:
            plain.get_submodule(name).weight.copy_(
                layers[name].grid.compute(layers[name].weight).value
            )
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=1e-5)
    model.train()(x).square().sum().backward()
    for name in names:
        assert layers[name].weight.grad.any(), name


@both
@each
def test_an_exported_model_gives_the_same_logits(kind, fields, tmp_path):
    config = KINDS[kind](**fields)
    model, x = built(config).eval(), samples(config)
    quantize(model, Quantization(format="ternary"))
    refresh(model, 1.0)
    export_model(tmp_path / "m.safetensors", model, config, Quantization(format="ternary"))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "m.safetensors")(x), model(x))


@both
@pytest.mark.parametrize("head", [False, True])
def test_layers_that_divide_by_their_largest_singular_value_are_refused(kind, head):
    model = built(KINDS[kind](sigma_reparam=True)).eval()
    before = list(map(type, model.modules()))
    for where in (None, lambda name, _: name.endswith("mlp_out")):
        with pytest.raises(
            ValueError, match=r"got blocks\.0\..*; set model\.sigma_reparam=False\.$"
        ):
            quantize(model, Quantization(format="ternary", head=head), where=where)
    assert list(map(type, model.modules())) == before
    assert quantize(model, WEIGHTS, where=lambda name, _: name == "head") == ("head",)
