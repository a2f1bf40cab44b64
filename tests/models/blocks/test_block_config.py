"""Fields that the language model and the image transformer share: rules, counts, exports."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from foretune.models import TransformerConfig, ViTConfig, count, count_module
from foretune.models.blocks.block_config import BlockConfig
from foretune.models.export.llama_layout import FREE, check_llama
from foretune.models.quantization.config import Quantization

torch.set_num_threads(1)

BOTH = pytest.mark.parametrize("kind", [TransformerConfig, ViTConfig])

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"qk_norm_span": "width"}, "model.qk_norm_span must be head without a qk-layernorm, got "
                                "width; set model.qk_norm=True, too."),
    ({"qk_norm_span": "all"}, "model.qk_norm_span must be one of head, width, got 'all'."),
    ({"v_norm": 1}, "model.v_norm must be True or False, got 1."),
    ({"attention": "relu"}, "model.attention must be one of softmax, relu2, got 'relu'."),
    ({"attention_scale": 0.1}, "model.attention_scale must be one of sqrt, linear, got 0.1."),
    ({"zero_query": "no"}, "model.zero_query must be True or False, got 'no'."),
    ({"attention_softcap": -1.0}, "model.attention_softcap must be a finite number from 0 up, got "
                                  "-1.0; 0 is off."),
    ({"logit_softcap": float("nan")}, "model.logit_softcap must be a finite number from 0 up, got "
                                      "nan; 0 is off."),
    ({"kappa": float("inf")}, "model.kappa must be a finite number from 0 up, got inf; 0 is off."),
    ({"kappa": True}, "model.kappa must be a finite number from 0 up, got True; 0 is off."),
    ({"norm_placement": "none"}, "model.norm_placement must be one of pre, post, reordered, got "
                                 "'none'."),
    ({"sigma_reparam": None}, "model.sigma_reparam must be True or False, got None."),
    ({"ladder": "heads"}, "model.ladder must be one of width, depth, joint, got 'heads'."),
    ({"kappa": 4.0, "qk_norm": True}, "model.kappa must be 0 with model.qk_norm, since both set "
                                      "the size of q and k, got 4.0; set model.qk_norm=False."),
    ({"kappa": 4.0, "zero_query": True}, "model.kappa must be 0 with model.zero_query, since a "
     "query of zero can't be scaled to a size, got 4.0; set model.zero_query=False."),
    ({"attention": "relu2", "attention_softcap": 50.0}, "model.attention_softcap must be 0 with "
     "model.attention=relu2, which has no softmax to cap for, got 50.0; set "
     "model.attention=softmax."),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=[str(v) for v, _ in REFUSED])
def test_what_breaks_a_rule_is_refused_in_one_sentence(kind, values, sentence):
    with pytest.raises(ValueError, match=r".") as error:
        kind(**values)
    assert str(error.value) == sentence


def test_an_initial_gain_that_is_divided_out_is_refused():
    with pytest.raises(ValueError, match=r"^model\.init_gain must be 1 with model\.sigma_reparam"):
        TransformerConfig(init_gain=1.5, sigma_reparam=True)


@BOTH
def test_the_defaults_are_the_plain_block(kind):
    config = kind()
    assert BlockConfig() == BlockConfig(**{f.name: getattr(config, f.name) for f in
                                           fields(BlockConfig)})  # fmt: skip
    assert config.heads == 4


@BOTH
@pytest.mark.parametrize(
    "values",
    [
        {"qk_norm": True, "qk_norm_span": "width"},
        {"v_norm": True},
        {"qk_norm": True, "v_norm": True, "head_dim": 8},
        {"sigma_reparam": True},
        {"kappa": 3.0, "attention": "relu2", "norm_placement": "post"},
        {"sigma_reparam": True, "qk_norm": True, "v_norm": True, "depth": 1},
    ],
    ids=str,
)
def test_counts_of_a_config_are_those_of_the_model_it_builds(kind, values):
    configs = [kind(width=32, **values)]
    if kind is TransformerConfig:
        configs.append(replace(configs[0], norm="rmsnorm", mlp="swiglu"))
    for config in configs:
        by_module, counts = count_module(config.build()), count(config)
        assert counts.n_params == by_module.n_params
        assert counts.n_params_total == by_module.n_params_total
        assert counts.state_bytes == by_module.state_bytes


LLAMA = TransformerConfig(width=16, depth=1, norm="rmsnorm", mlp="swiglu")
CHANGED: dict[str, dict[str, Any]] = {
    "qk_norm_span": {"qk_norm": True, "qk_norm_span": "width"},
    "v_norm": {"v_norm": True},
    "attention": {"attention": "relu2"},
    "attention_scale": {"attention_scale": "linear"},
    "attention_softcap": {"attention_softcap": 50.0},
    "logit_softcap": {"logit_softcap": 30.0},
    "kappa": {"kappa": 2.0},
    "norm_placement": {"norm_placement": "post"},
    "sigma_reparam": {"sigma_reparam": True},
}


@pytest.mark.parametrize("name", [f.name for f in fields(BlockConfig)])
def test_a_llama_has_no_mechanism_that_gguf_cannot_say(name):
    if name in FREE:
        free = {"ladder": "joint", "zero_query": True, "width": 32, "depth": 2, "head_dim": 8}
        config = replace(LLAMA, **{name: free[name]})
        assert check_llama(config.build(), config, Quantization(format="ternary")) is config
        return
    config = replace(LLAMA, **CHANGED.get(name, {"qk_norm": True}))
    with pytest.raises(ValueError, match=rf"needs the Llama block .*, got .*model\.{name}="):
        check_llama(config.build(), config, Quantization(format="ternary"))
