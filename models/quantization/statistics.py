"""What the grids of a model look like: telemetry columns, and trits for the export.

Kinds of layer are the last module name on their path, as in the trainer's probes
(`blocks.0.attention.qkv` is of kind `qkv`). Every statistic is of the grid that the weights stand
nearest to, whatever the strength.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foretune.models.quantization.formats import formats_of_trits
from foretune.models.quantization.layers import (
    GridWeight,
    QuantizedEmbedding,
    QuantizedLayer,
    quantized_layers,
)


class TernaryWeight(NamedTuple):
    """The weight that a layer computes with is levels x scale."""

    levels: Tensor
    """int8, of the weight's shape: -1, 0, 1."""
    scale: Tensor
    """fp32: () for a tensor, (O, 1) for rows, (O, G) for groups of a row. It multiplies."""


@contextmanager
def watching(model: nn.Module) -> Iterator[None]:
    """Counts inputs at the ends of their grid in the forward passes inside.

    `quantization_statistics` reads them, inside or until the next `watching`.
    """
    layers = [m for m in quantized_layers(model).values() if not isinstance(m, QuantizedEmbedding)]
    for layer in layers:
        layer.clipped, layer.watched = [], True
    try:
        yield
    finally:
        for layer in layers:
            layer.watched = False


@torch.no_grad()
def quantization_statistics(model: nn.Module) -> dict[str, float]:
    """Returns telemetry columns, each over all layers and by `_{kind}`; {} without grids.

    `zero_fraction`: share of weights whose level is 0. `weight_scale`: mean over layers of the
    mean scale. `dead_rows`: share of outputs (rows of an embedding) whose levels are all 0.
    `activation_clipped`: share of inputs at an end of their grid, mean over layers and over the
    forward passes of the last `watching`; scaled by their maximum, each token has one at least, so
    it is 1 / inputs where outliers leave the others little. Columns without a source are left out.
    """
    sums: dict[str, list[Tensor | float]] = defaultdict(lambda: [0.0, 0.0])

    def add(column: str, kind: str, total: Tensor | float, count: float) -> None:
        for name in (column, f"{column}_{kind}"):
            sums[name][0] = sums[name][0] + total
            sums[name][1] = sums[name][1] + count

    for name, layer in _with_grids(model):
        grid, kind = _grid(layer), _kind(name)
        # int8 is counted as it is, 10 times as fast; float8 has a second zero, -0.
        levels = grid.levels if grid.levels.dtype == torch.int8 else grid.levels.float()
        largest = levels.flatten(1).abs().amax(1)
        add("zero_fraction", kind, levels.numel() - torch.count_nonzero(levels), levels.numel())
        add("weight_scale", kind, grid.scale.mean(), 1)
        add("dead_rows", kind, len(largest) - torch.count_nonzero(largest), len(largest))
        clipped = getattr(layer, "clipped", None)
        if clipped:
            add("activation_clipped", kind, torch.stack(clipped).mean(), 1)
    if not sums:
        return {}
    totals = torch.stack([torch.as_tensor(total) for total, _ in sums.values()]).tolist()
    return {n: t / c for t, (n, (_, c)) in zip(totals, sums.items(), strict=True)}


class TritFlips:
    """Remembers the levels of a model's layers from one reading to the next (a byte a weight)."""

    def __init__(self) -> None:
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def read(self, model: nn.Module) -> dict[str, float]:
        """Returns `trit_flip_rate` and `trit_flip_rate_{kind}`: the share of weights whose level
        isn't the one of the last reading, over however many updates lie between; {} the first time.
        """
        # Bytes as integers: float8 has no comparison.
        now = {n: _grid(layer).levels.view(torch.int8) for n, layer in _with_grids(model)}
        before, self._before = self._before, now
        if before.keys() != now.keys() or not now:
            return {}
        flips = torch.stack([(now[n] != before[n]).sum() for n in now]).tolist()
        flipped: dict[str, int] = defaultdict(int)
        counts: dict[str, int] = defaultdict(int)
        for name, flips_here in zip(now, flips, strict=True):
            for column in ("trit_flip_rate", f"trit_flip_rate_{_kind(name)}"):
                flipped[column] += flips_here
                counts[column] += now[name].numel()
        return {column: flipped[column] / counts[column] for column in flipped}

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what the next reading compares with, for a checkpoint."""
        return dict(self._before)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over a `state_dict`: the next reading is then that of a run never interrupted."""
        self._before = dict(state)


@torch.no_grad()
def ternary_layers(model: nn.Module) -> dict[str, TernaryWeight]:
    """Returns trits and scales of every ternary or binary layer, from the full-precision weights.

    Export these, once: the mean of |levels x scale| is smaller than the scale (by the share of
    zeros), so a second quantization of what the first one gave is another model. Raises ValueError
    for a model without grids, another format, a strength below 1, or weights that aren't finite.
    """
    layers = dict(_with_grids(model))
    if not layers:
        raise ValueError("model must hold ternary layers, got none; train with a quantization.")
    exported = {}
    for name, layer in layers.items():
        form, strength = layer.grid.format, layer.grid.strength
        if form is None or not form.trits:
            packed = " or ".join(formats_of_trits())
            raise ValueError(f"export needs quantization.format={packed}, got {form} in {name}.")
        if strength != 1:
            raise ValueError(
                f"export needs quantization.strength=1, got {strength} in {name}, whose weights "
                f"aren't ternary yet; train past start and strength_warmup."
            )
        grid = layer.grid.compute(layer.weight)
        if not bool(torch.isfinite(layer.weight).all()):
            raise ValueError(f"export needs finite weights, got nan or inf in {name}.")
        exported[name] = TernaryWeight(grid.levels, grid.scale)
    return exported


def _with_grids(model: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    return ((n, m) for n, m in quantized_layers(model).items() if m.grid.format is not None)


def _grid(layer: QuantizedLayer) -> GridWeight:
    return layer.grid.read(layer.weight, layer.training)


def _kind(name: str) -> str:
    parts = [part for part in name.split(".") if not part.isdigit()]
    return parts[-1] if parts else name
