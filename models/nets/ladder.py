"""One dial: size -> config, with parameter, FLOP and byte counts; a ladder for each model kind."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, TypeVar

from foretune.models.blocks.checks import check_heads, nearest
from foretune.models.nets.convnet import ConvNetConfig
from foretune.models.nets.counts import BYTES_PER_PARAMETER, Counts, count_traced
from foretune.models.nets.torchvision_nets import TorchvisionConfig
from foretune.models.nets.transformer import TransformerConfig
from foretune.models.nets.vit import ViTConfig

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class Ladder:
    """How one kind of config goes up and down in size."""

    dial: str
    """What a size is, in words."""
    at_size: Callable[[Any, int], Any]
    """The config at a size."""
    size_of: Callable[[Any], int]
    """The size of a config; the inverse of at_size."""
    count: Callable[[Any], Counts]
    """Counts from the config alone."""
    rounds: bool = False
    """Whether neighbouring sizes can be the same net."""


def has_ladder(config: object) -> bool:
    """Returns whether `at_size` and `count` know this kind of config."""
    return _find(config) is not None


def at_size(config: Config, size: int) -> Config:
    """Returns the config at a rung of its ladder, all else kept.

    The dial is the width; for transformers, `model.ladder` says what it moves; for torchvision's
    models it is the width multiplier in percent. Raises ValueError where there is no such rung
    (naming the nearest) or no ladder.
    """
    return _ladder(config).at_size(config, size)


def size_of(config: object) -> int:
    """Returns the rung a config stands on; without a ladder its `width`, or 0 if it has none."""
    ladder = _find(config)
    return ladder.size_of(config) if ladder else int(getattr(config, "width", 0))


def count(config: object) -> Counts:
    """Returns the counts of a config with a ladder; no memory is taken for the model."""
    return _ladder(config).count(config)


def check_rungs(configs: Iterable[object]) -> None:
    """Raises ValueError where two of the configs differ in size alone and are the same net.

    torchvision's nets take channels in steps of 8: ResNets of 12 and 13 % have 8 both.
    """
    rounding = [c for c in dict.fromkeys(configs) if (ladder := _find(c)) and ladder.rounds]
    for first, second in combinations(rounding, 2):
        sizes = size_of(first), size_of(second)
        if sizes[0] == sizes[1] or type(first) is not type(second):
            continue
        if at_size(first, sizes[1]) == second and count(first) == count(second):
            # No channel falls on the way up, so equal counts are equal channels.
            taken = [count(config) for config in rounding]
            others = [_other(first, min(sizes), -1, taken), _other(first, max(sizes), 1, taken)]
            raise ValueError(
                f"model.size must give another net each time, got {sizes[0]} and {sizes[1]}, which "
                f"round to the same channels; {nearest('other size', filter(None, others))}."
            )


def _other(config: object, size: int, step: int, taken: list[Counts]) -> int:
    """The nearest size below or above whose net isn't taken; 0 where there is none."""
    while size > 0 and count(at_size(config, size)) in taken:
        size += step
    return size


def _count_transformer(config: TransformerConfig) -> Counts:
    """N = 12 D^2 L + (2 L + 1) D (13 D^2 L with SwiGLU), and a layer's share of other gains more:
    2 K with qk-layernorm (2 D over the whole width), K with v_norm, 1 for each of the 4 or 5
    matrices with sigma_reparam, whose power iterations aren't among the FLOPs.

    FLOPs of a forward pass per token: 2 for each weight of a matrix product (N without gains, and
    the head), and 4 T D a layer for the two attention products over the full context T; a training
    step is three forward passes.
    """
    matrices, gains = _block_parameters(config)
    head = config.width * config.vocab_size
    attention = 4 * config.max_positions * config.width * config.depth
    return _counts(
        n_params=matrices + gains,
        outside=2 * head,
        flops_per_token=3 * (2 * (matrices + head) + attention),
    )


def _count_vit(config: ViTConfig) -> Counts:
    """N as the LM's: blocks and final norm. Over T patches of C P^2 numbers, a forward pass of an
    image costs 2 T (12 D^2 L) + 4 T^2 D L in the blocks, 2 D classes in the head (after the mean)
    and 2 T C P^2 D in the patch embedding, which is passed twice instead of three times.
    """
    matrices, gains = _block_parameters(config)
    patches, head = config.patches, config.width * config.classes
    patch_embedding = config.channels * config.patch_size**2 * config.width
    attention = 4 * patches**2 * config.width * config.depth
    return _counts(
        n_params=matrices + gains,
        outside=patch_embedding + patches * config.width + head,
        flops_per_token=3 * (2 * (patches * matrices + head) + attention)
        + 2 * 2 * patches * patch_embedding,
    )


def _block_parameters(config: TransformerConfig | ViTConfig) -> tuple[int, int]:
    """Weights of the blocks' matrices, and the gains of all norms and layers."""
    width, depth, head_dim = config.width, config.depth, config.head_dim
    gated = isinstance(config, TransformerConfig) and config.mlp == "swiglu"
    per_block = 2 * width
    if config.qk_norm:
        per_block += 2 * (width if config.qk_norm_span == "width" else head_dim)
    if config.v_norm:
        per_block += head_dim
    if config.sigma_reparam:
        per_block += 5 if gated else 4
    return (13 if gated else 12) * width**2 * depth, depth * per_block + width


def _count_convnet(config: ConvNetConfig) -> Counts:
    """N = (378 n - 80) w^2 + (28 n + 2) w for n blocks a stage: two 3x3 convolutions and two norms
    (gain and bias) a block, two 1x1 convolutions where the width doubles, and the final norm.
    FLOPs: 2 for each weight and pixel that comes out; the stem is passed twice, the rest three
    times.
    """
    side = config.image_size
    n_params, flops = 0, 2 * 2 * side**2 * 9 * config.channels * config.width
    for inputs, outputs, stride in config.plan:
        side = -(-side // stride)
        shortcut = inputs * outputs if stride > 1 else 0
        weights = 9 * (inputs + outputs) * outputs + shortcut
        n_params += weights + 2 * (inputs + outputs)
        flops += 3 * 2 * side**2 * weights
    last = config.plan[-1][1]
    return _counts(
        n_params=n_params + 2 * last,
        outside=9 * config.channels * config.width + last * config.classes,
        flops_per_token=flops + 3 * 2 * last * config.classes,
    )


@lru_cache(maxsize=256)
def _count_torchvision(config: TorchvisionConfig) -> Counts:
    # The recipe is torchvision's: read it off the model instead of writing it down again.
    return count_traced(config)


def _counts(*, n_params: int, outside: int, flops_per_token: float) -> Counts:
    total = n_params + outside
    return Counts(
        n_params=n_params,
        n_params_total=total,
        flops_per_token=float(flops_per_token),
        state_bytes=BYTES_PER_PARAMETER * total,
    )


def _at_width(config: Any, size: int) -> Any:
    return replace(config, width=size)


def _width(config: Any) -> int:
    return config.width


def _at_depth(config: Any, size: int) -> Any:
    return replace(config, depth=size)


def _depth(config: Any) -> int:
    return config.depth


def _at_both(config: Any, size: int) -> Any:
    check_heads(size, config.head_dim)
    # At least 1, so that a size of nothing is refused as a width.
    return replace(config, width=size, depth=max(1, size // config.head_dim))


def _at_percent(config: TorchvisionConfig, size: int) -> TorchvisionConfig:
    return replace(config, width_multiplier=size / 100)


def _percent(config: TorchvisionConfig) -> int:
    return config.percent


TRANSFORMER_AXES: dict[str, tuple[Callable[[Any, int], Any], Callable[[Any], int]]] = {
    "width": (_at_width, _width),
    "depth": (_at_depth, _depth),
    "joint": (_at_both, _width),
}
"""What the dial of a transformer moves, by `model.ladder`: the config at a size, and its inverse.

width: the width, and heads with it; depth: the blocks; joint: the width, with as many blocks as
heads. The dimension of a head stays.
"""


def _at_rung(config: Any, size: int) -> Any:
    return TRANSFORMER_AXES[config.ladder][0](config, size)


def _rung(config: Any) -> int:
    return TRANSFORMER_AXES[config.ladder][1](config)


LADDERS: dict[type, Ladder] = {
    TransformerConfig: Ladder("width or depth", _at_rung, _rung, _count_transformer),
    ViTConfig: Ladder("width or depth", _at_rung, _rung, _count_vit),
    ConvNetConfig: Ladder("width", _at_width, _width, _count_convnet),
    TorchvisionConfig: Ladder(
        "width multiplier in percent", _at_percent, _percent, _count_torchvision, rounds=True
    ),
}
"""Ladders by the type of config."""


def _find(config: object) -> Ladder | None:
    """The ladder of a config's class or of the nearest class it is derived from."""
    return next((LADDERS[cls] for cls in type(config).__mro__ if cls in LADDERS), None)


def _ladder(config: object) -> Ladder:
    ladder = _find(config)
    if ladder is None:
        known = ", ".join(cls.__name__ for cls in LADDERS)
        raise ValueError(
            f"model must be of a kind with a ladder ({known}), got {type(config).__name__}; "
            f"set its own fields."
        )
    return ladder
