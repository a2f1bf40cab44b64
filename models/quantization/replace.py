"""Where quantization goes: layers of a model are replaced in place, by the names that come back."""

from collections.abc import Callable

from torch import nn

from foretune.models.blocks.layers import Linear
from foretune.models.blocks.sigma_reparam import SigmaLinear
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.layers import (
    LayerRule,
    QuantizedConv2d,
    QuantizedEmbedding,
    QuantizedLayer,
    QuantizedLinear,
)

HEADS = ("head", "heads", "fc", "classifier")
"""Children of a model that hold its head, the first that is there."""
PATCHES = "patch_embedding"
"""A module that counts as a first convolution, whatever it is made of."""

LayerFilter = Callable[[str, nn.Module], bool]
"""Whether the layer of a dotted name is quantized."""

UNBUILT = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Bilinear,
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.EmbeddingBag,
)
"""Layers that a user may ask for and that have no quantized form."""


def quantize(
    model: nn.Module, config: Quantization, *, where: LayerFilter | None = None
) -> tuple[str, ...]:
    """Replaces layers of a model in place; returns their dotted names.

    Candidates are `models.blocks.layers.Linear`, `nn.Linear`, `nn.Conv2d` and `nn.Embedding`
    themselves, not classes derived from them. Without `where` all are taken but embeddings, the
    head (the last Linear or Conv2d inside the first child called head, heads, fc or classifier, or
    of the whole model without such a child) and the first convolution (the first Conv2d, and what
    is inside a module called patch_embedding), unless config takes those too. `where` decides
    alone. The new layers hold the old ones' parameters. A config of full precision without norm
    changes nothing.

    Raises ValueError, the model unchanged, where no layer is taken; where the model is itself a
    layer; for a group size that divides no row; for layers with hooks; where `where` takes a layer
    of a kind that isn't built; and for sigma-reparametrised layers.
    """
    if not config.active:
        return ()
    if _is_layer(model):
        raise ValueError(
            f"model must hold the layers to quantize, got a lone {type(model).__name__}, which "
            f"can't be replaced in place; wrap it in torch.nn.Sequential."
        )
    _check_no_sigma(model, where)
    rule = LayerRule(
        weights=config.weight_format(), activations=config.activation_format(), norm=config.norm
    )
    taken = _taken(model, config, where)
    for name, layer in taken.items():
        _check_layer(name, layer, rule)
    new = {layer: _replacement(layer, rule, config.strength) for layer in taken.values()}
    for parent in list(model.modules()):
        for child_name, child in list(parent._modules.items()):
            if child in new:
                parent._modules[child_name] = new[child].train(child.training)
    return tuple(taken)


def _check_no_sigma(model: nn.Module, where: LayerFilter | None) -> None:
    for name, module in model.named_modules():
        if isinstance(module, SigmaLinear) and (where is None or where(name, module)):
            raise ValueError(
                f"quantization serves weights that layers use as they are, got {name}, which "
                f"divides its own by their largest singular value; set model.sigma_reparam=False."
            )


def _is_layer(module: nn.Module) -> bool:
    return type(module) in (Linear, nn.Linear, nn.Conv2d, nn.Embedding)


def _replacement(layer: nn.Module, rule: LayerRule, strength: float) -> QuantizedLayer:
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d(layer, rule, strength=strength)
    if isinstance(layer, nn.Embedding):
        return QuantizedEmbedding(layer, rule, strength=strength)
    assert isinstance(layer, Linear | nn.Linear)
    return QuantizedLinear(layer, rule, strength=strength)


def _taken(
    model: nn.Module, config: Quantization, where: LayerFilter | None
) -> dict[str, nn.Module]:
    layers = {n: m for n, m in model.named_modules() if _is_layer(m)}
    if where is not None:
        for name, module in model.named_modules():
            if isinstance(module, UNBUILT) and where(name, module):
                raise ValueError(
                    f"quantization serves Linear, Conv2d and Embedding, got {name}, a "
                    f"{type(module).__name__}; leave it out of `where`."
                )
        taken = {n: m for n, m in layers.items() if where(n, m)}
    else:
        kept = _kept(model, layers, config)
        taken = {n: m for n, m in layers.items() if n not in kept}
    if config.format == "none":
        # The control has norms before layers, and an embedding has nothing to normalise.
        taken = {n: m for n, m in taken.items() if not isinstance(m, nn.Embedding)}
    if not taken:
        cure = "`where` must take one" if where else "quantization.head=True takes a head"
        raise ValueError(
            f"quantization must change at least one layer, got none of the {len(layers)} Linear, "
            f"Conv2d and Embedding layers of {type(model).__name__}; {cure}."
        )
    return taken


def _kept(model: nn.Module, layers: dict[str, nn.Module], config: Quantization) -> set[str]:
    """Returns the names that the default leaves in full precision."""
    kept: set[str] = set()
    if not config.embedding:
        kept |= {n for n, m in layers.items() if isinstance(m, nn.Embedding)}
    if not config.first_conv:
        convolutions = [n for n, m in model.named_modules() if _is_convolution(m)]
        kept |= set(convolutions[:1])
        kept |= {n for n in layers if PATCHES in n.split(".")}
    if not config.head:
        kept |= {n for n in (head_of(model),) if n is not None}
    return kept


def head_of(model: nn.Module) -> str | None:
    """Returns the name of the layer that is the head, or None in a model without layers.

    The last Linear or Conv2d, quantized or not, inside the first child called head, heads, fc or
    classifier; of the whole model where none is called so.
    """
    names = [n for n, m in model.named_modules() if _is_convolution(m) or _is_linear(m)]
    for child in HEADS:
        inside = [n for n in names if n.split(".")[0] == child]
        if inside:
            return inside[-1]
    return names[-1] if names else None


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | QuantizedConv2d)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, Linear | nn.Linear | QuantizedLinear)


def _check_layer(name: str, layer: nn.Module, rule: LayerRule) -> None:
    weight = layer._parameters.get("weight")
    if weight is None or layer._forward_hooks or layer._forward_pre_hooks:
        raise ValueError(
            f"quantization needs layers with a plain weight and without hooks, got {name}; "
            f"quantize before hooks and parametrizations are added."
        )
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.sparse):
        raise ValueError(
            f"quantization serves embeddings without max_norm and sparse gradients, got {name}; "
            f"set quantization.embedding=False."
        )
    if rule.weights is not None and rule.weights.granularity == "group":
        row, size = weight[0].numel(), rule.weights.group_size
        if row % size:
            divisors = ", ".join(str(d) for d in range(1, row + 1) if row % d == 0)
            raise ValueError(
                f"quantization.group_size must divide the weights in a row of every layer, got "
                f"{size} and {row} in {name}; {row} can be divided by {divisors}."
            )
