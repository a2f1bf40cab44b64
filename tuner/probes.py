"""Probes: what is measured at taps, gradients, parameters and updates.

A probe reads taps only while one batch passes, so the other steps pay nothing. Shapes as in
`models.layers`; kinds of parameter are the last module name on their path
(`blocks.0.attention.qkv.weight` is of kind `qkv`).
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn

from models import Tap
from models.levels import TritFlips, quantization_statistics
from models.levels import watching as watching_grids
from models.quantized_layers import quantized_layers
from tuner.optim import AdamW, FlatParameters

POSITION_STRIDE = 4
"""Means over positions are read at one in this many."""


class Probes:
    """Reads telemetry columns of one model and its optimizer."""

    def __init__(self, model: nn.Module, flat: FlatParameters, required: tuple[str, ...]):
        self.taps = [m for m in model.modules() if isinstance(m, Tap)]
        missing = sorted(set(required) - {t.kind for t in self.taps})
        if missing:
            raise ValueError(
                f"probes must each have a tap in the model, got none of kind "
                f"{', '.join(missing)}; add models.Tap({missing[0]!r}) where the tensor is, or "
                f"take it out of probes."
            )
        self.model, self.flat = model, flat
        self.quantized = bool(quantized_layers(model))
        self.flips = TritFlips()
        self.kinds = [_kind(name) for name in flat.names]
        self.counts = _by_kind(self.kinds, [float(n) for n in flat.sizes])
        self._readings: dict[str, list[Tensor]] = defaultdict(list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads the taps of the forward passes inside (several micro-batches are combined)."""
        self._readings.clear()
        for tap in self.taps:
            tap.watch = self._read
        try:
            with watching_grids(self.model) if self.quantized else nullcontext():
                yield
        finally:
            for tap in self.taps:
                tap.watch = None

    def columns(self) -> dict[str, float]:
        """Returns what `watching` read, by telemetry column; values may be non-finite."""
        combined = [_combine(name, v) for name, v in self._readings.items()]
        values = torch.stack(combined).tolist() if combined else []
        columns = dict(zip(self._readings, values, strict=True))
        layers = [v for c, v in columns.items() if c.startswith("max_attention_logit_layer")]
        entropies = [c for c in columns if c.startswith("attention_entropy_layer")]
        if layers:
            columns["max_attention_logit"] = _worst(layers)
            columns["attention_entropy"] = sum(columns.pop(c) for c in entropies) / len(entropies)
        if self.quantized:
            columns |= quantization_statistics(self.model) | self.flips.read(self.model)
        return columns

    def gradients(self) -> dict[str, float]:
        """Returns `grad_rms_{kind}`: RMS of the gradients as they stand."""
        return self._rms("grad_rms", self.flat.grads)

    def parameters(self) -> dict[str, float]:
        """Returns `param_rms_{kind}`: RMS of the weights."""
        return self._rms("param_rms", self.flat.values)

    def updates(self, optimizer: AdamW) -> dict[str, float]:
        """Returns `update_rms_{kind}`: RMS of the last update before LR and decay."""
        return self._rms("update_rms", optimizer.unscaled_update())

    def _rms(self, prefix: str, flat: Tensor) -> dict[str, float]:
        parts = self.flat.views(flat)
        squares = torch.stack([torch.dot(part, part) for part in parts]).tolist()
        sums = _by_kind(self.kinds, squares)
        return {f"{prefix}_{kind}": (sums[kind] / self.counts[kind]) ** 0.5 for kind in sums}

    @torch.no_grad()
    def _read(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        device = tensors[0].device.type
        if not torch.is_autocast_enabled(device):
            self._measure(tap, tensors)
            return
        # Autocast would round the float32 products below to 8 bits.
        with torch.autocast(device, enabled=False):
            self._measure(tap, tensors)

    def _measure(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        suffix = f"_layer{tap.layer}" if tap.layer >= 0 else ""
        if tap.kind == "attention":
            largest, entropy = _attention_statistics(*tensors, scale=tap.scale, causal=tap.causal)
            self._readings[f"max_attention_logit{suffix or '_layer0'}"].append(largest)
            self._readings[f"attention_entropy{suffix or '_layer0'}"].append(entropy)
        elif tap.kind == "block_output":
            self._readings[f"output_norm_rms{suffix}"].append(_rms(tensors[0]))
        elif tap.kind == "logits":
            logits = tensors[0].float()
            if logits.ndim > 2:
                logits = sampled(logits, logits.ndim - 2)
            # log p = logit - log Z, at the largest; half the time of logsumexp.
            log_p = torch.log_softmax(logits, -1)
            log_z = logits.amax(-1) - log_p.amax(-1)
            self._readings["log_z_mean"].append(log_z.mean())
            self._readings["logits_rms"].append(_rms(logits))


def sampled(x: Tensor, axis: int) -> Tensor:
    """Returns every fourth position of an axis, the last one included.

    Means over positions (entropy, log Z, RMS of the logits) are read there: a quarter of the cost.
    Maxima are read everywhere.
    """
    last = x.shape[axis] - 1
    positions = torch.arange(last % POSITION_STRIDE, last + 1, POSITION_STRIDE, device=x.device)
    return x.index_select(axis, positions)


def _attention_statistics(
    q_BHTK: Tensor, k_BHTK: Tensor, logits: Tensor | None = None, *, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """Returns the largest logit of all and the mean entropy of the sampled queries, in nats."""
    if logits is None:
        q, k = q_BHTK.float().flatten(0, 1), k_BHTK.float().flatten(0, 1)
        mask = _mask(q.shape[-2], k.shape[-2], causal, q.device)
        logits = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)
    largest = logits.amax()
    p = torch.softmax(sampled(logits, logits.ndim - 2), -1)
    return largest, torch.special.entr(p).sum() / p[..., 0].numel()


@lru_cache(maxsize=8)
def _mask(queries: int, keys: int, causal: bool, device: torch.device) -> Tensor:
    mask = torch.zeros(queries, keys, device=device)
    return mask.masked_fill_(torch.ones_like(mask).triu(1).bool(), -torch.inf) if causal else mask


def _rms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.float()) * x.numel() ** -0.5


def _combine(name: str, readings: list[Tensor]) -> Tensor:
    """Over micro-batches of equal size: the largest of maxima, the RMS of RMS, the mean else."""
    if len(readings) == 1:
        return readings[0]
    values = torch.stack(readings)
    if name.startswith("max_"):
        return values.amax()
    return _rms(values) if "_rms" in name else values.mean()


def _worst(values: list[float]) -> float:
    """The largest; a nan among them wins, since max() would lose it."""
    return next((v for v in values if v != v), max(values))


def _kind(name: str) -> str:
    parts = [p for p in name.split(".")[:-1] if not p.isdigit()]
    return parts[-1] if parts else name


def _by_kind(kinds: list[str], values: list[float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for kind, value in zip(kinds, values, strict=True):
        sums[kind] += value
    return dict(sums)
