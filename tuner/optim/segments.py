"""Which stretch of the flat buffer is updated with which learning rate, decay and epsilon.

D is a model's width.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from torch import Tensor

from foretune.models.nets.parametrize import Rule
from foretune.tuner.config.optimizer import Optimizer
from foretune.tuner.optim.flat_parameters import FlatParameters

QKV, QKV_BIAS = "qkv.weight", "qkv.bias"
"""How the name of a weight ends that makes queries, keys and values: 3 D rows, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A tensor, or the third of one that makes queries, keys or values."""

    start: int
    """Where it begins in the flat buffer."""
    stop: int
    """Where it ends, exclusive."""
    tensor: int
    """The parameter that it is of, by its place in the flat buffer."""
    matrix: tuple[int, int] | None
    """Rows and columns where Muon updates it, else None."""
    lr: float
    """Factor on the learning rate."""
    decay: float
    """Share of the weights that AdamW's kernel takes away a step, over the learning rate."""
    epsilon: float
    """AdamW's epsilon."""


@dataclass(frozen=True, slots=True)
class Group:
    """Stretches of the flat buffer that are updated alike."""

    spans: tuple[tuple[int, int], ...]
    """Start and stop of each, as long as they can be."""
    like: Segment
    """One of their segments: theirs are its learning rate, decay and epsilon, and whether Muon
    updates them."""

    def cut(self, flat: Tensor) -> list[Tensor]:
        """Returns the stretches of a flat tensor."""
        return [flat[start:stop] for start, stop in self.spans]


def segments(
    flat: FlatParameters, config: Optimizer, rules: Mapping[str, Rule]
) -> tuple[Segment, ...]:
    """Returns the segments of a flat buffer, in its order; rules are factors by parameter.

    Raises ValueError where Muon or qk_lr finds no weight to act on.
    """
    parts: list[Segment] = []
    start = 0
    for tensor, (name, size) in enumerate(zip(flat.names, flat.sizes, strict=True)):
        rule = rules.get(name, Rule())
        whole = Segment(
            start=start,
            stop=start + size,
            tensor=tensor,
            matrix=_matrix(flat, tensor) if config.name == "muon" else None,
            lr=rule.lr,
            decay=config.weight_decay if _decays(flat, tensor, config.decay_on) else 0.0,
            epsilon=config.epsilon * rule.epsilon,
        )
        split = config.name == "muon" or config.qk_lr != 1
        parts += _thirds(whole, config.qk_lr) if split and makes_qkv(flat, tensor) else [whole]
        start += size
    _check_found(flat, config, parts)
    return tuple(replace(part, decay=_kernel_decay(part, config)) for part in parts)


def _kernel_decay(part: Segment, config: Optimizer) -> float:
    """Independent of what the learning rate is, or a share of it (torch's own meaning)."""
    return part.decay / (config.lr * part.lr) if config.decay == "independent" else part.decay


def makes_qkv(flat: FlatParameters, tensor: int) -> bool:
    """Whether a parameter's rows make queries, keys and values, a third each."""
    name, shape = flat.names[tensor], flat.shapes[tensor]
    named = (name.endswith(QKV) and len(shape) == 2) or name.endswith(QKV_BIAS)
    return named and shape[0] % 3 == 0


def _thirds(whole: Segment, qk_lr: float) -> list[Segment]:
    size = (whole.stop - whole.start) // 3
    matrix = (whole.matrix[0] // 3, whole.matrix[1]) if whole.matrix else None
    return [
        replace(
            whole,
            start=whole.start + third * size,
            stop=whole.start + (third + 1) * size,
            matrix=matrix,
            lr=whole.lr * (qk_lr if third < 2 else 1.0),
        )
        for third in range(3)
    ]


def _decays(flat: FlatParameters, tensor: int, decay_on: str) -> bool:
    if decay_on == "all":
        return True
    embedding = flat.names[tensor] in flat.embeddings
    return len(flat.shapes[tensor]) >= 2 and not (decay_on == "linear" and embedding)


def _matrix(flat: FlatParameters, tensor: int) -> tuple[int, int] | None:
    """The shape of a matrix of a block; None for all else."""
    name, shape = flat.names[tensor], flat.shapes[tensor]
    hidden = "blocks" in name.split(".") and name not in flat.embeddings
    return (shape[0], shape[1]) if hidden and len(shape) == 2 else None


def _check_found(flat: FlatParameters, config: Optimizer, parts: Sequence[Segment]) -> None:
    if config.name == "muon" and not any(part.matrix for part in parts):
        raise ValueError(
            "optimizer.name=muon needs a model with matrices in a module called blocks, got none; "
            "set optimizer.name=adamw."
        )
    if config.qk_lr != 1 and not any(makes_qkv(flat, i) for i in range(len(flat.names))):
        raise ValueError(
            f"optimizer.qk_lr needs a model with a weight called ...{QKV} of 3 D rows, got none; "
            f"set optimizer.qk_lr=1."
        )


def grouped(parts: Iterable[Segment]) -> list[Group]:
    """Returns the groups of segments that are updated alike; neighbours become one stretch."""
    like: dict[tuple[object, ...], Segment] = {}
    spans: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for key, run in groupby(parts, key=_alike):
        neighbours = list(run)
        like.setdefault(key, neighbours[0])
        spans.setdefault(key, []).append((neighbours[0].start, neighbours[-1].stop))
    return [Group(tuple(spans[key]), like[key]) for key in like]


def _alike(part: Segment) -> tuple[object, ...]:
    return part.lr, part.decay, part.epsilon, part.matrix is not None
