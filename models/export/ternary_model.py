"""A trained ternary model as trits, scales and the rest, and back.

Trits and scales are taken once, from the full-precision weights, and never computed again: the
mean of |trit x scale| is smaller than the scale, so a model that was quantized a second time is
another model. `rebuild` therefore gives each layer a format that answers with what was stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foretune.models.blocks.buildable import Buildable
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import Format, Ternary
from foretune.models.quantization.layers import Grid, quantized_layers, refresh
from foretune.models.quantization.replace import quantize
from foretune.models.quantization.scales import dequantize
from foretune.models.quantization.statistics import TernaryWeight, ternary_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryParts:
    """What a ternary model consists of."""

    ternary: dict[str, TernaryWeight]
    """Trits and scale of the weight of each ternary layer, by the layer's dotted name."""
    rest: dict[str, Tensor]
    """All other parameters and buffers, by their names in the state_dict."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Stored(Format):
    """The format of one weight whose levels and scale came from a file; it rounds nothing."""

    trits: ClassVar[bool] = True

    weight: TernaryWeight

    @property
    def granularity(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        shape = self.weight.scale.shape
        return "tensor" if not shape else "row" if shape[1] == 1 else "group"

    @property
    def group_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        levels, scale = self.weight
        return levels.numel() // scale.numel()

    @property
    def highest(self) -> float:
        return 1.0

    def sharing(self, granularity: str, group_size: int = 64) -> "Stored":
        raise ValueError(
            f"granularity must be that of the file, {self.granularity}, got {granularity}; train "
            f"with another quantization.granularity."
        )

    def scale_of(self, weight: Tensor) -> Tensor:
        return self.weight.scale.to(weight.device)

    def levels(self, weight: Tensor, scale: Tensor) -> Tensor:
        return self.weight.levels.to(weight.device).float()

    def level_bytes(self, count: int) -> int:
        return Ternary().level_bytes(count)

    def __repr__(self) -> str:
        return f"Stored(granularity={self.granularity!r})"


def take_apart(model: nn.Module) -> TernaryParts:
    """Returns the parts of a trained or a loaded model, on the CPU; the model stays as it is.

    Raises ValueError for a model that isn't ternary at full strength (`ternary_layers` says why)
    and for values that aren't finite.
    """
    layers = quantized_layers(model)
    formats = {name: layer.grid.format for name, layer in layers.items()}
    stored = {name: f.weight for name, f in formats.items() if isinstance(f, Stored)}
    ternary = stored or ternary_layers(model)
    rest = {}
    for name, value in _not_ternary(model, set(ternary)).items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"export needs finite values, got nan or inf in {name}; export a checkpoint from "
                f"before the run diverged."
            )
        rest[name] = value.detach().cpu().contiguous()
    return TernaryParts(
        ternary={n: TernaryWeight(w.levels.cpu(), w.scale.cpu()) for n, w in ternary.items()},
        rest=rest,
    )


def rebuild(config: Buildable, quantization: Quantization, parts: TernaryParts) -> nn.Module:
    """Returns the model of a config with these parts, ready to evaluate (not to train on).

    Activations are quantized as in training, so its logits are those of the trained model. Raises
    ValueError where the parts aren't those of such a model.
    """
    model = config.build()
    names = set(parts.ternary)
    unknown = names - {name for name, _ in model.named_modules()}
    if unknown:
        raise _mismatch(f"layers {_some(unknown)} more than it has")
    quantize(model, quantization, where=lambda name, _: name in names)
    layers = quantized_layers(model)
    if set(layers) != names:
        raise _mismatch(f"layers {_some(names ^ set(layers))} that can't be ternary")
    with torch.no_grad():
        for name, weight in parts.ternary.items():
            layer = layers[name]
            check_weight(name, weight)
            if weight.levels.shape != layer.weight.shape:
                raise _mismatch(
                    f"{name} of shape {tuple(weight.levels.shape)} instead of "
                    f"{tuple(layer.weight.shape)}"
                )
            layer.weight.copy_(dequantize(*weight)).requires_grad_(False)
            layer.grid = Grid(Stored(weight=weight), 1.0)
    _load_rest(model, parts.rest, names)
    model.eval()
    refresh(model, 1.0)
    return model


def check_weight(name: str, weight: TernaryWeight) -> None:
    """Raises ValueError unless scale is fp32, finite, positive, and fits the levels."""
    levels, scale = weight
    fits = scale.ndim == 0 or (
        scale.ndim == 2
        and len(scale) == len(levels)
        and scale.shape[1] > 0
        and levels[0].numel() % scale.shape[1] == 0
    )
    if not fits or scale.dtype != torch.float32:
        raise ValueError(
            f"scale of {name} must be fp32 of shape (), (O, 1) or (O, G) for levels of shape "
            f"{tuple(levels.shape)}, got {scale.dtype} of shape {tuple(scale.shape)}."
        )
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError(f"scale of {name} must be finite and above 0; the file is damaged.")


def _not_ternary(model: nn.Module, ternary: set[str]) -> dict[str, Tensor]:
    """Returns what the state_dict holds beside the weights of ternary layers, each tensor once.

    By identity: a layer or parameter that stands in two places has two names there.
    """
    layers = quantized_layers(model)
    seen = {id(layers[name].weight) for name in ternary}
    own: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        owner, _, attribute = name.rpartition(".")
        if id(value) not in seen:
            own[name] = value
            seen.add(id(value))
        elif attribute == "weight" and model.get_submodule(owner) not in layers.values():
            latent = [n for n in ternary if layers[n].weight is value]
            if latent:
                raise ValueError(
                    f"export needs weights that are ternary in every place, got {latent[0]}, "
                    f"which shares its own with {name}; untie them."
                )
    return own


def _load_rest(model: nn.Module, rest: Mapping[str, Tensor], ternary: set[str]) -> None:
    own = _not_ternary(model, ternary)
    if own.keys() != rest.keys():
        raise _mismatch(f"other parameters: {_some(own.keys() ^ rest.keys())}")
    with torch.no_grad():
        for name, value in own.items():
            if value.shape != rest[name].shape:
                raise _mismatch(
                    f"{name} of shape {tuple(rest[name].shape)} instead of {tuple(value.shape)}"
                )
            value.copy_(rest[name])


def _mismatch(what: str) -> ValueError:
    return ValueError(
        f"the file must hold a model of its config, got {what}; load it with the version of "
        f"foretune that wrote it."
    )


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3])
