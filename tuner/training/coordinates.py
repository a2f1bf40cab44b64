"""Measures a coordinate check: signals of a few widths at initialization and in the first steps.

Trained as any run is (`tuner.training.train.Training`), without Ray. Shapes: N rows, D width, T
positions.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import torch
from torch import Tensor, nn

from foretune.analysis.claims.mup_theory import EMBEDDINGS
from foretune.models import Tap
from foretune.models.blocks.block_config import BlockConfig
from foretune.models.blocks.layers import Linear
from foretune.models.nets.parametrize import PARAMETRIZATIONS, Rule, parametrize
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.training.taps import attention_logits, watched
from foretune.tuner.training.train import Training

Change = Callable[[Mapping[str, Rule]], Mapping[str, Rule]]
"""Rules of the parameters, as they shall be instead."""

WIDTHS: Final = (16, 32, 64, 128, 256)
PLAIN: Final = {
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 0.0,
    "schedule.name": "constant",
    "schedule.warmup_steps": 0,
    "eval_every": 1,
}
"""So that a step's update is the learning rate times Adam's, at every width."""
KNOWN: Final = {
    "model.norm_placement": "pre",
    "model.sigma_reparam": False,
    "optimizer.name": "adamw",
    "optimizer.lr_scale": "none",
    "optimizer.agc": 0.0,
    "optimizer.adagc": 0.0,
    "optimizer.zclip": 0.0,
    "quantization.format": "none",
    "quantization.norm": False,
}
"""What `analysis.claims.mup_theory` has theory for."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What one layer gave for the fixed batch."""

    output: Tensor
    input: Tensor | None = None
    """Of a linear layer."""
    weight: Tensor | None = None
    """Of a linear layer, a copy: (outputs, inputs)."""


Key = tuple[str, int]
"""A layer's name in `analysis.claims.mup_theory.LAYERS` and its block, or -1."""


def coordinates(
    run: Run,
    *,
    parametrizations: Sequence[str] = tuple(PARAMETRIZATIONS),
    widths: Sequence[int] = WIDTHS,
    steps: int = 10,
    lr: float = 1e-2,
    seeds: int = 3,
    change_rules: Change | None = None,
) -> list[dict[str, Any]]:
    """Returns the coordinates of each parametrization, width, seed and step: rows with
    the columns of `analysis.claims.mup_theory.COLUMNS`.

    run gives everything but width, parametrization, seed, learning rate and length; it is trained
    at a constant learning rate, without warm-up, clipping and decay. The batch that is measured is
    of its validation data, batch_size samples. change_rules takes what `parametrize` gave and
    returns what is to be used instead: to see that a wrong rule shows. Raises ValueError for a
    model or setting that there is no theory for.
    """
    check_known(run)
    samples = "validation_images" if isinstance(run.data, ImageData) else "validation_sequences"
    plain = {**PLAIN, "optimizer.lr": lr, "steps": steps, f"data.{samples}": run.batch_size}
    run = override(run, plain)
    runs = {  # All of them first: each is checked.
        (name, width, seed): _at(run, name, width, seed)
        for name, width, seed in product(parametrizations, widths, range(seeds))
    }
    return [
        {"parametrization": name, "width": width, "seed": seed, **row}
        for (name, width, seed), one in runs.items()
        for row in _follow(one, change_rules)
    ]


def check_known(run: Run) -> None:
    """Raises ValueError for what the theory of `analysis.claims.mup_theory` doesn't speak of."""
    if not isinstance(run.model, BlockConfig):
        raise ValueError(
            f"coord-check needs a transformer, whose theory it knows, got "
            f"{type(run.model).__name__}; use a preset like lm-tiny or vit-tiny."
        )
    for path, known in KNOWN.items():
        group, _, name = path.partition(".")
        value = getattr(getattr(run, group), name)
        if value != known:
            raise ValueError(
                f"{path} must be {known} for coord-check, which has theory for that alone, got "
                f"{value}; leave it out."
            )


def _at(run: Run, parametrization: str, width: int, seed: int) -> Run:
    changes = {"parametrization.name": parametrization, "model.width": width, "seed": seed}
    return override(run, changes)


def _follow(run: Run, change_rules: Change | None) -> Iterator[dict[str, Any]]:
    """The rows of one training: all layers at initialization and after each step."""
    training = Training(run, _ignore, device="cpu")
    if change_rules is not None:
        rules = change_rules(parametrize(run.model.build(), run.model, run.parametrization))
        training.optimizer = FlatOptimizer(
            training.flat, run.optimizer, run.schedule, run.steps, rules
        )
    inputs = training.stream.validation[0]
    first = read_signals(training.model, inputs)
    yield from _rows(0, first, first)
    while training.outcome is None:
        training.advance()
        yield from _rows(training.step, first, read_signals(training.model, inputs))


def _ignore(step: int, metrics: Mapping[str, float]) -> None:
    """A sink for telemetry that nobody reads."""


def _rows(
    step: int, first: Mapping[Key, Signal], now: Mapping[Key, Signal]
) -> Iterator[dict[str, Any]]:
    for (layer, block), signal in now.items():
        change = rms(signal.output - first[layer, block].output)
        update = change if layer in EMBEDDINGS else own_effect(first[layer, block], signal)
        where = {"step": step, "layer": layer, "block": block}
        yield where | {"rms": rms(signal.output), "change": change, "update": update}


def own_effect(first: Signal, now: Signal) -> float:
    """Returns the RMS of (W_t - W_0) x_t, x_t scaled to the RMS of x_0; nan without weights."""
    if first.weight is None or now.weight is None or first.input is None or now.input is None:
        return float("nan")
    effect = now.input @ (now.weight - first.weight).T
    return rms(effect) * rms(first.input) / rms(now.input)


def rms(x: Tensor) -> float:
    """Returns the root mean square of all numbers."""
    return float(x.double().square().mean().sqrt())


@torch.no_grad()
def read_signals(model: nn.Module, inputs: Tensor) -> dict[Key, Signal]:
    """Returns what every layer of a transformer gives for a batch, in the order of `LAYERS`' kind.

    q, k and v are those parts of the one layer that makes them. Attention logits are scaled, and
    only those of visible pairs; nothing caps or normalises them here that doesn't act on q and k.
    """
    found: dict[Key, Signal] = {}
    hooks = [
        module.register_forward_hook(_reader(found, name))
        for name, module in model.named_modules()
        if isinstance(module, Linear) or name in EMBEDDINGS
    ]

    def read_tap(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        if tap.kind == "block_output":
            found["block_output", tap.layer] = Signal(tensors[0].clone())
        elif tap.kind == "attention":
            q_BHTK, k_BHTK = tensors[:2]
            logits = attention_logits(q_BHTK, k_BHTK, scale=tap.scale, causal=tap.causal)
            found["attention_logits", tap.layer] = Signal(logits[logits.isfinite()])

    taps = [module for module in model.modules() if isinstance(module, Tap)]
    try:
        with watched(taps, read_tap):
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _reader(found: dict[Key, Signal], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    """A hook that files what a layer takes and gives under its own name, or the parts' names."""
    leaf = name.rpartition(".")[2]
    block = int(match[1]) if (match := re.match(r"blocks\.(\d+)\.", name)) else -1
    parts = {"qkv": ("q", "k", "v"), "head": ("logits",)}.get(leaf, (leaf,))

    def read(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(module, Linear):
            found[leaf, block] = Signal(output.clone())
            return
        pieces: Iterable[tuple[Tensor, Tensor]] = zip(
            output.chunk(len(parts), -1), module.weight.chunk(len(parts)), strict=True
        )
        for part, (piece, weight) in zip(parts, pieces, strict=True):
            found[part, block] = Signal(piece.clone(), inputs[0].clone(), weight.clone())

    return read
