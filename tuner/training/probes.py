"""Probes: what is measured at taps, gradients, parameters and updates.

A probe reads taps only while one batch passes, so the other steps pay nothing. Shapes as in
`models.blocks.layers`; kinds of parameter are the last module name on their path
(`blocks.0.attention.qkv.weight` is of kind `qkv`).
"""

from collections import defaultdict
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
from foretune.tuner.training.taps import attention_logits, loudest_pair, watched

POSITION_STRIDE = 4
"""Means over positions are read at one in this many."""
COSINE = "qk_cosine"
"""Column whose readings hold the size of a pair's logit beside its cosine."""


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
        """required are kinds of tap that must be there; detail adds columns (`_measure`, `_rms`).

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
        self.counts = _by_kind(self.kinds, [float(n) for n in flat.sizes])
        # Weights that aren't a softmax's have no entropy.
        own = getattr(getattr(model, "config", None), "attention", "softmax")
        self.softmax = own == "softmax"
        self._readings: dict[str, list[Tensor]] = defaultdict(list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads the taps of the forward passes inside (several micro-batches are combined)."""
        self._readings.clear()
        grids = watching_grids(self.model) if self.quantized else nullcontext()
        with watched(self.taps, self._measure), grids:
            yield

    def columns(self) -> dict[str, float]:
        """Returns what `watching` read, by telemetry column; values may be non-finite."""
        combined = [_combine(name, v) for name, v in self._readings.items()]
        values = torch.stack(combined).tolist() if combined else []
        columns = dict(zip(self._readings, values, strict=True))
        layers = [v for c, v in columns.items() if c.startswith("max_attention_logit_layer")]
        entropies = [c for c in columns if c.startswith("attention_entropy_layer")]
        if layers:
            columns["max_attention_logit"] = _worst(layers)
        if entropies:
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

    def updates(self, optimizer: FlatOptimizer) -> dict[str, float]:
        """Returns `update_rms_{kind}`: RMS of the last update before LR and decay."""
        return self._rms("update_rms", optimizer.unscaled_update())

    def second_moments(self, optimizer: FlatOptimizer) -> dict[str, float]:
        """Returns `rms_t_{kind}`: the largest RMS_t of a kind's parameters, before the update.

        Only in detail; kinds without a second moment are left out.
        """
        columns: dict[str, float] = {}
        for name, value in optimizer.rms_t().items() if self.detail else ():
            column = f"rms_t_{_kind(name)}"
            columns[column] = _worst([value, columns.get(column, 0.0)])
        return columns

    def _rms(self, prefix: str, flat: Tensor) -> dict[str, float]:
        parts = self.flat.views(flat)
        squares = torch.stack([torch.dot(part, part) for part in parts]).tolist()
        sums = _by_kind(self.kinds, squares)
        return {f"{prefix}_{kind}": (sums[kind] / self.counts[kind]) ** 0.5 for kind in sums}

    def _measure(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        suffix = f"_layer{tap.layer}" if tap.layer >= 0 else ""
        if tap.kind == "attention":
            self._measure_attention(tap, tensors, suffix or "_layer0")
        elif tap.kind == "block_output":
            self._readings[f"output_norm_rms{suffix}"].append(_rms(tensors[0]))
        elif tap.kind == "logits":
            logits = tensors[0].float()
            if self.detail:
                self._readings["logits_min"].append(logits.amin())
            if logits.ndim > 2:
                logits = sampled(logits, logits.ndim - 2)
            # log p = logit - log Z, at the largest; half the time of logsumexp.
            log_p = torch.log_softmax(logits, -1)
            log_z = logits.amax(-1) - log_p.amax(-1)
            self._readings["log_z_mean"].append(log_z.mean())
            self._readings["logits_rms"].append(_rms(logits))
            if self.detail:
                self._readings["logits_mean"].append(logits.mean())

    def _measure_attention(self, tap: Tap, tensors: tuple[Tensor, ...], suffix: str) -> None:
        q_BHTK, k_BHTK, *held = tensors
        if held:
            logits = held[0]
        else:
            logits = attention_logits(q_BHTK, k_BHTK, scale=tap.scale, causal=tap.causal)
        self._readings[f"max_attention_logit{suffix}"].append(logits.amax())
        if self.softmax:
            self._readings[f"attention_entropy{suffix}"].append(_entropy(logits))
        if self.detail:
            self._readings[f"q_rms{suffix}"].append(_rms(q_BHTK))
            self._readings[f"k_rms{suffix}"].append(_rms(k_BHTK))
            pair = loudest_pair(q_BHTK, k_BHTK, causal=tap.causal)
            self._readings[f"{COSINE}{suffix}"].append(pair)


def sampled(x: Tensor, axis: int) -> Tensor:
    """Returns every fourth position of an axis, the last one included.

    Means over positions (entropy, log Z, RMS of the logits) are read there: a quarter of the cost.
    Maxima are read everywhere.
    """
    last = x.shape[axis] - 1
    positions = torch.arange(last % POSITION_STRIDE, last + 1, POSITION_STRIDE, device=x.device)
    return x.index_select(axis, positions)


def _entropy(logits: Tensor) -> Tensor:
    """Returns the mean entropy of the sampled queries, in nats."""
    p = torch.softmax(sampled(logits, logits.ndim - 2), -1)
    return torch.special.entr(p).sum() / p[..., 0].numel()


def _rms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.float()) * x.numel() ** -0.5


def _combine(name: str, readings: list[Tensor]) -> Tensor:
    """Over micro-batches of equal size: the largest of maxima, the RMS of RMS, the mean else.

    Of the loudest pairs, the cosine of the loudest.
    """
    if name.startswith(COSINE):
        pairs = torch.stack(readings)
        return pairs[pairs[:, 0].argmax(), 1]
    if len(readings) == 1:
        return readings[0]
    values = torch.stack(readings)
    if name.startswith("max_"):
        return values.amax()
    if name == "logits_min":
        return values.amin()
    return _rms(values) if "_rms" in name else values.mean()


def _worst(values: list[float]) -> float:
    """The largest; a nan among them wins, since max() would lose it."""
    return next((v for v in values if v != v), max(values))


def _kind(name: str) -> str:
    parts = [p for p in name.split(".")[:-1] if not p.isdigit()]
    return parts[-1] if parts else name


def _kinds(name: str, detail: bool) -> list[str]:
    """The kind of a parameter and, in detail, that with the block it is in (`blocks.{i}`)."""
    parts = name.split(".")
    kinds = [_kind(name)]
    if detail and "blocks" in parts:
        layer = parts[parts.index("blocks") + 1]
        kinds += [f"{kinds[0]}_layer{layer}"] if layer.isdigit() else []
    return kinds


def _by_kind(kinds: list[list[str]], values: list[float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for names, value in zip(kinds, values, strict=True):
        for name in names:
            sums[name] += value
    return dict(sums)
