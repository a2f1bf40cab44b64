"""Parametrizations: what a model's size does to initial values, learning rates and branches.

muP as source A tests it (Wortsman et al. 2023, section 3.2.4 and figure E.5; Yang et al. 2022) and
CompleteP's rule for depth (Dey et al. 2025).
"""

from dataclasses import dataclass, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import nn

from foretune.models.blocks.attention import Attention, ForcedRMS
from foretune.models.blocks.block import Block
from foretune.models.blocks.checks import check_whole
from foretune.models.blocks.layers import Linear
from foretune.models.quantization.layers import QuantizedLinear
from foretune.models.quantization.replace import head_of

Layer = TypeVar("Layer", bound=nn.Module)

LINEARS = (Linear, nn.Linear, QuantizedLinear)
"""Layers that muP has rules for."""

PARAMETRIZATIONS: dict[str, frozenset[str]] = {
    "standard": frozenset(),
    "mup-simple": frozenset({"learning rate"}),
    "mup-intermediate": frozenset({"learning rate", "head"}),
    "mup-full": frozenset({"learning rate", "head", "attention"}),
}
"""What each name changes, of what `_apply_mup` can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parametrization:
    """How initial values, learning rates and branches follow the size of the model."""

    name: str = "standard"
    """standard; mup-simple: the learning rate of linear layers falls as base_width / width;
    mup-intermediate: and the head starts smaller; mup-full: and the attention scale is 1 / head_dim
    and queries start at zero."""
    base_width: int = 16
    """Width at which the optimizer's learning rate holds for all layers; the smallest width of the
    ladder in use (source A: 256)."""
    base_depth: int = 0
    """Depth at which residual branches count in full: deeper ones, and the AdamW epsilon of the
    blocks' parameters, are scaled by base_depth / depth. 0 switches the rule off."""

    def __post_init__(self) -> None:
        if self.name not in PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization.name must be one of {', '.join(PARAMETRIZATIONS)}, "
                f"got {self.name!r}."
            )
        check_whole(self, ("base_width",), group="parametrization")
        check_whole(self, ("base_depth",), group="parametrization", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an optimizer does with one parameter, beside its own settings."""

    lr: float = 1.0
    """Factor on the learning rate."""
    epsilon: float = 1.0
    """Factor on AdamW's epsilon."""


def parametrize(model: nn.Module, config: Any, parametrization: Parametrization) -> dict[str, Rule]:
    """Changes a fresh model of config in place; returns the rules of its parameters, by name.

    Only those that aren't `Rule()` are there. The learning rate of a linear layer's weight is
    multiplied by base_fan_in / fan_in = base_width / width where its inputs grow with config.width
    (in a transformer all do); never that of embeddings, norms, gains and biases. So at width =
    base_width mup-simple and mup-intermediate change nothing, and neither does the rule for depth
    at depth = base_depth; mup-full always does. Quantizing before or after makes no difference.

    Raises ValueError, the model unchanged, where a rule has nothing to act on: muP needs a config
    that is a dataclass with a `width`, and a model whose hidden layers are
    `models.blocks.layers.Linear` or `nn.Linear`; mup-full needs
    `models.blocks.attention.Attention`, base_depth `models.blocks.block.Block`.
    """
    base_depth = parametrization.base_depth
    blocks = (
        _of_kind(model, Block, f"parametrization.base_depth={base_depth}") if base_depth else {}
    )
    mup = PARAMETRIZATIONS[parametrization.name]
    lr = _apply_mup(model, config, parametrization) if mup else {}
    epsilon: dict[str, float] = {}
    for name, block in blocks.items():
        block.branch_scale = base_depth / len(blocks)
        epsilon |= {f"{name}.{n}": block.branch_scale for n, _ in block.named_parameters()}
    rules = {
        n: Rule(lr=lr.get(n, 1.0), epsilon=epsilon.get(n, 1.0)) for n, _ in model.named_parameters()
    }
    return {n: rule for n, rule in rules.items() if rule != Rule()}


def check_parametrization(config: Any, parametrization: Parametrization) -> None:
    """ValueError where a parametrization has nothing to act on in the models of a config."""
    if parametrization == Parametrization():
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = config.build()
    parametrize(model, config, parametrization)


def _apply_mup(model: nn.Module, config: Any, parametrization: Parametrization) -> dict[str, float]:
    """Sets initial values and scales; returns factors on the learning rate by parameter."""
    asked = f"parametrization.name={parametrization.name}"
    linears = _growing_linears(model, config, asked)
    ratio = parametrization.base_width / config.width
    changes = PARAMETRIZATIONS[parametrization.name]
    attentions = _of_kind(model, Attention, asked) if "attention" in changes else {}
    if any(isinstance(attention.q_norm, ForcedRMS) for attention in attentions.values()):
        raise ValueError(
            f"{asked} starts queries at zero, which model.kappa can't scale to a size, got "
            f"model.kappa={config.kappa}; set model.kappa=0 or parametrization.name="
            f"mup-intermediate."
        )
    if "head" in changes:
        _shrink_head(model, linears, ratio, asked)
    for attention in attentions.values():
        attention.set_scale("linear")
        attention.zero_query()
    return {f"{name}.weight": ratio for name in linears if "learning rate" in changes}


@torch.no_grad()
def _shrink_head(model: nn.Module, linears: list[str], ratio: float, asked: str) -> None:
    """From the standard deviation 1 / sqrt(fan_in), say, to sqrt(base_fan_in) / fan_in."""
    head = head_of(model)
    if head not in linears:
        raise ValueError(
            f"{asked} needs a head that is a linear layer whose inputs grow with model.width, got "
            f"{head or 'none'} in {type(model).__name__}; use parametrization.name=mup-simple."
        )
    cast("nn.Linear", model.get_submodule(head)).weight.mul_(ratio**0.5)


def _growing_linears(model: nn.Module, config: Any, asked: str) -> list[str]:
    """Returns the names of the linear layers whose inputs grow with the width."""
    growth = _growth(model, config, asked)
    linears = [n for n, m in model.named_modules() if isinstance(m, LINEARS)]
    weights = [f"{name}.weight" for name in linears]
    own = type(model).__name__
    for name, axes in growth.items():
        if sum(axes) > 1 and name not in weights:
            raise ValueError(
                f"{asked} has a rule for hidden layers that are linear, got {name} of {own}, which "
                f"is none and grows with model.width on both sides; use "
                f"parametrization.name=standard."
            )
    for name in weights:
        if name not in growth:
            raise ValueError(
                f"{asked} needs linear layers with weights of their own, got {name} of {own}, "
                f"which another layer shares; untie it."
            )
    growing = [n for n, weight in zip(linears, weights, strict=True) if growth[weight][1]]
    if not growing:
        raise ValueError(
            f"{asked} needs linear layers whose inputs grow with model.width, got none in {own}; "
            f"use parametrization.name=standard."
        )
    return growing


def _growth(model: nn.Module, config: Any, asked: str) -> dict[str, tuple[bool, ...]]:
    """Returns, for each axis of each parameter, whether it grows with the width."""
    width = getattr(config, "width", None)
    if not is_dataclass(config) or isinstance(config, type) or type(width) is not int:
        raise ValueError(
            f"{asked} needs a model config with a width, a whole number, got "
            f"{type(config).__name__}; use parametrization.name=standard."
        )
    # Shapes alone, and no draw from the generator that batches or dropout may use next.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wider = cast("Any", replace(config, width=2 * width)).build()
    shapes = {n: p.shape for n, p in wider.named_parameters()}
    own = {n: p.shape for n, p in model.named_parameters()}
    if own.keys() != shapes.keys():
        raise ValueError(
            f"{asked} needs a model with the same parameters at every width, got "
            f"{type(model).__name__} with others at {2 * width}; use parametrization.name=standard."
        )
    return {
        n: tuple(b > a for a, b in zip(shape, shapes[n], strict=True)) for n, shape in own.items()
    }


def _of_kind(model: nn.Module, kind: type[Layer], asked: str) -> dict[str, Layer]:
    found = {n: m for n, m in model.named_modules() if isinstance(m, kind)}
    if not found:
        raise ValueError(
            f"{asked} needs {kind.__module__}.{kind.__name__}, got none in "
            f"{type(model).__name__}; leave it out."
        )
    return found
