"""Probes: what is measured at taps, gradients, parameters and updates.

A probe reads taps only while one batch passes, so the other steps pay nothing. Shapes as in
`models.blocks.layers`; kinds of parameter are the last module name on their path
(`blocks.0.attention.qkv.weight` is of kind `qkv`).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from foretune.models import Tap
from foretune.models.quantization.layers import quantized_layers
from foretune.models.quantization.statistics import TritFlips, quantization_statistics
from foretune.models.quantization.statistics import watching as watching_grids
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.training.readings import Readings, by_kind, kind_of, worst
from foretune.tuner.training.taps import watched


class Probes:
    """Reads telemetry columns of one model and its optimizer."""

    def __init__(
        self,
        model: nn.Module,
        flat: FlatParameters,
        required: tuple[str, ...],
        *,
        detail: bool = False,
    ):
        """required are kinds of tap that must be there; detail adds columns (`Readings`, `_rms`).

        Raises ValueError for a kind that no tap of the model has.
        """
        self.taps = [m for m in model.modules() if isinstance(m, Tap)]
        missing = sorted(set(required) - {t.kind for t in self.taps})
        if missing:
            raise ValueError(
                f"probes must each have a tap in the model, got none of kind "
                f"{', '.join(missing)}; add models.Tap({missing[0]!r}) where the tensor is, or "
                f"take it out of probes."
            )
        self.model, self.flat, self.detail = model, flat, detail
        self.quantized = bool(quantized_layers(model))
        self.flips = TritFlips()
        self.kinds = [_kinds(name, detail) for name in flat.names]
        self.counts = by_kind(self.kinds, [float(n) for n in flat.sizes])
        # Weights that aren't a softmax's have no entropy.
        own = getattr(getattr(model, "config", None), "attention", "softmax")
        self._readings = Readings(detail=detail, softmax=own == "softmax")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads the taps of the forward passes inside (several micro-batches are combined)."""
        self._readings.clear()
        grids = watching_grids(self.model) if self.quantized else nullcontext()
        with watched(self.taps, self._readings.read_tap), grids:
            yield

    def columns(self) -> dict[str, float]:
        """Returns what `watching` read, by telemetry column; values may be non-finite."""
        columns = self._readings.columns()
        if self.quantized:
            columns |= quantization_statistics(self.model) | self.flips.read(self.model)
        return columns

    def gradients(self) -> dict[str, float]:
        """Returns `grad_rms_{kind}`: RMS of the gradients as they stand."""
        return self._rms("grad_rms", self.flat.grads)

    def parameters(self) -> dict[str, float]:
        """Returns `param_rms_{kind}`: RMS of the weights."""
        return self._rms("param_rms", self.flat.values)

    def updates(self, optimizer: FlatOptimizer) -> dict[str, float]:
        """Returns `update_rms_{kind}`: RMS of the last update before LR and decay."""
        return self._rms("update_rms", optimizer.unscaled_update())

    def second_moments(self, optimizer: FlatOptimizer) -> dict[str, float]:
        """Returns `rms_t_{kind}`: the largest RMS_t of a kind's parameters, before the update.

        Only in detail; kinds without a second moment are left out.
        """
        columns: dict[str, float] = {}
        for name, value in optimizer.rms_t().items() if self.detail else ():
            column = f"rms_t_{kind_of(name)}"
            columns[column] = worst([value, columns.get(column, 0.0)])
        return columns

    def _rms(self, prefix: str, flat: Tensor) -> dict[str, float]:
        parts = self.flat.views(flat)
        squares = torch.stack([torch.dot(part, part) for part in parts]).tolist()
        sums = by_kind(self.kinds, squares)
        return {f"{prefix}_{kind}": (sums[kind] / self.counts[kind]) ** 0.5 for kind in sums}


def _kinds(name: str, detail: bool) -> list[str]:
    """The kind of a parameter and, in detail, that with the block it is in (`blocks.{i}`)."""
    parts = name.split(".")
    kinds = [kind_of(name)]
    if detail and "blocks" in parts:
        layer = parts[parts.index("blocks") + 1]
        kinds += [f"{kinds[0]}_layer{layer}"] if layer.isdigit() else []
    return kinds
