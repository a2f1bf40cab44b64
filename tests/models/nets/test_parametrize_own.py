"""Parametrizations of a user's own models, and what is refused."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from foretune.models import (
    ConvNetConfig,
    Parametrization,
    Rule,
    TorchvisionConfig,
    TransformerConfig,
    parametrize,
)

torch.set_num_threads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A user's config; kind says what its model is made of."""

    width: int = 32
    kind: str = "mlp"

    def build(self) -> nn.Module:
        return OwnModel(self)


class OwnModel(nn.Module):
    def __init__(self, config: Own):
        super().__init__()
        width, kind = config.width, config.kind
        self.embedding = nn.Embedding(10, width)
        if kind == "mlp":
            self.pixels = nn.Linear(784, width)
            self.middle = nn.Linear(width, 3 * width)
            self.classes = nn.Linear(3 * width, 10)
        if kind == "gru":
            self.gru = nn.GRU(width, width)
        if kind == "conv":
            self.conv = nn.Conv2d(width, width, 3)
        if kind != "mlp":
            self.head = nn.Linear(width, 10)
        if kind == "tied":
            self.head.weight = self.embedding.weight
        if kind == "flat head":
            self.head = nn.Sequential(nn.Linear(width, 7), nn.Linear(7, 10))
        if kind == "deeper":
            self.more = nn.ModuleList(nn.Linear(width, width) for _ in range(width))


def test_a_user_s_linear_layers_follow_the_inputs_that_grow():
    random = torch.get_rng_state()
    model = Own().build()
    torch.set_rng_state(random)
    found = parametrize(model, Own(), Parametrization(name="mup-intermediate", base_width=8))
    assert torch.equal(torch.get_rng_state(), random)
    assert found == {"middle.weight": Rule(lr=0.25), "classes.weight": Rule(lr=0.25)}
    again = Own().build()
    assert torch.equal(model.classes.weight, again.classes.weight / 2)
    assert torch.equal(model.middle.weight, again.middle.weight)
    assert torch.equal(model.pixels.weight, again.pixels.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nameless:
    """A config without a width."""

    hidden: int = 8

    def build(self) -> nn.Module:
        return Own(width=self.hidden).build()


MUP_SIMPLE, FULL = {"name": "mup-simple"}, {"name": "mup-full"}
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "convolutions": (ConvNetConfig(), MUP_SIMPLE, r"got blocks\.0\.conv1\.weight of ConvNet, whi"),
    "torchvision": (TorchvisionConfig(width_multiplier=0.1), MUP_SIMPLE,
                    r"needs a model config with a width, a whole number, got TorchvisionConfig"),
    "no width": (Nameless(), MUP_SIMPLE, r"needs a model config with a width, .* got Nameless"),
    "recurrent": (Own(kind="gru"), MUP_SIMPLE, r"got gru\.weight_ih_l0 of OwnModel, which is none"),
    "conv": (Own(kind="conv"), MUP_SIMPLE, r"got conv\.weight of OwnModel, which is none"),
    "tied": (Own(kind="tied"), MUP_SIMPLE, r"got head\.weight of OwnModel, which another layer"),
    "other parameters": (Own(kind="deeper"), MUP_SIMPLE, r"the same parameters at every width"),
    "head": (Own(kind="flat head"), {"name": "mup-intermediate"},
             r"needs a head that is a linear layer .*, got head\.1 in OwnModel; use .*mup-simple"),
    "no attention": (Own(), FULL,
                     r"^parametrization\.name=mup-full needs foretune\.models\.blocks\."
                     r"attention\."),
    "kappa": (TransformerConfig(width=16, kappa=4.0), FULL,
              r"starts queries at zero, which model\.kappa can't"),
    "no block": (Own(), {"base_depth": 2},
                 r"^parametrization\.base_depth=2 needs foretune\.models\.blocks\.block\.Block, "
                 r"got none in Own"),
    "no block with muP": (Own(), {"name": "mup-intermediate", "base_depth": 2}, r"base_depth=2 ne"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_with_nothing_to_act_on_is_refused_and_changes_nothing(case):
    config, fields, message = REFUSED[case]
    model = config.build()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        parametrize(model, config, Parametrization(**fields))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "mup"}, "parametrization.name must be one of standard, mup-simple, "
                          "mup-intermediate, mup-full, got 'mup'."),
        ({"base_width": 0}, "parametrization.base_width must be a whole number from 1 up, got 0."),
        ({"base_width": 16.0}, "parametrization.base_width must be a whole number from 1 up, got "
                               "16.0."),
        ({"base_depth": -1}, "parametrization.base_depth must be a whole number from 0 up, got "
                             "-1."),
        ({"base_depth": True}, "parametrization.base_depth must be a whole number from 0 up, got "
                               "True."),
    ],
)  # fmt: skip
def test_a_parametrization_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=r".") as error:
        Parametrization(**fields)
    assert str(error.value) == sentence
