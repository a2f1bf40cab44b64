"""Telemetry columns of the tensors of a forward pass: attention logits, block outputs, logits.

Several passes (micro-batches) are combined. Shapes as in `models.blocks.layers`.
"""

from collections import defaultdict

import torch
from torch import Tensor

from foretune.models import Tap
from foretune.tuner.training.taps import attention_logits, loudest_pair

POSITION_STRIDE = 4
"""Means over positions are read at one in this many."""
COSINE = "qk_cosine"
"""Column whose readings hold the size of a pair's logit beside its cosine."""


class Readings:
    """Collects readings, and gives them as columns."""

    def __init__(self, *, detail: bool = False, softmax: bool = True):
        """detail adds columns; softmax says whether attention has weights that have an entropy."""
        self.detail, self.softmax = detail, softmax
        self._readings: dict[str, list[Tensor]] = defaultdict(list)

    def clear(self) -> None:
        """Forgets what was read."""
        self._readings.clear()

    def columns(self) -> dict[str, float]:
        """Returns what was read, by telemetry column; values may be non-finite."""
        combined = [_combine(name, v) for name, v in self._readings.items()]
        values = torch.stack(combined).tolist() if combined else []
        columns = dict(zip(self._readings, values, strict=True))
        layers = [v for c, v in columns.items() if c.startswith("max_attention_logit_layer")]
        entropies = [c for c in columns if c.startswith("attention_entropy_layer")]
        if layers:
            columns["max_attention_logit"] = worst(layers)
        if entropies:
            columns["attention_entropy"] = sum(columns.pop(c) for c in entropies) / len(entropies)
        return columns

    def read_tap(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        """Reads the tensors that pass a tap."""
        layer = tap.layer if tap.layer >= 0 else None
        if tap.kind == "attention":
            self._read_attention_tap(tap, tensors, layer or 0)
        elif tap.kind == "block_output":
            self.read_output(tensors[0], layer)
        elif tap.kind == "logits":
            self.read_logits(tensors[0])

    def _read_attention_tap(self, tap: Tap, tensors: tuple[Tensor, ...], layer: int) -> None:
        q_BHTK, k_BHTK, *held = tensors
        if held:
            logits = held[0]
        else:
            logits = attention_logits(q_BHTK, k_BHTK, scale=tap.scale, causal=tap.causal)
        self.read_attention(logits, layer)
        if self.detail:
            self._readings[f"q_rms_layer{layer}"].append(rms(q_BHTK))
            self._readings[f"k_rms_layer{layer}"].append(rms(k_BHTK))
            pair = loudest_pair(q_BHTK, k_BHTK, causal=tap.causal)
            self._readings[f"{COSINE}_layer{layer}"].append(pair)

    def read_attention(self, logits: Tensor, layer: int) -> None:
        """Reads scaled and masked attention logits (..., T, S), -inf where a key is masked."""
        self._readings[f"max_attention_logit_layer{layer}"].append(logits.amax())
        if self.softmax:
            self._readings[f"attention_entropy_layer{layer}"].append(_entropy(logits))

    def read_output(self, output: Tensor, layer: int | None) -> None:
        """Reads what a block gives to the next one, of any shape."""
        suffix = "" if layer is None else f"_layer{layer}"
        self._readings[f"output_norm_rms{suffix}"].append(rms(output))

    def read_logits(self, logits: Tensor) -> None:
        """Reads the model's logits (..., vocabulary or classes)."""
        logits = logits.float()
        if self.detail:
            self._readings["logits_min"].append(logits.amin())
        if logits.ndim > 2:
            logits = sampled(logits, logits.ndim - 2)
        # log p = logit - log Z, at the largest; half the time of logsumexp.
        log_p = torch.log_softmax(logits, -1)
        log_z = logits.amax(-1) - log_p.amax(-1)
        self._readings["log_z_mean"].append(log_z.mean())
        self._readings["logits_rms"].append(rms(logits))
        if self.detail:
            self._readings["logits_mean"].append(logits.mean())


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


def rms(x: Tensor) -> Tensor:
    """Returns the root of the mean square of all elements, a tensor without axes."""
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
    return rms(values) if "_rms" in name else values.mean()


def worst(values: list[float]) -> float:
    """The largest; a nan among them wins, since max() would lose it."""
    return next((v for v in values if v != v), max(values))


def kind_of(name: str) -> str:
    """The kind of a parameter by its path: the last module name on it."""
    parts = [p for p in name.split(".")[:-1] if not p.isdigit()]
    return parts[-1] if parts else name


def by_kind(kinds: list[list[str]], values: list[float]) -> dict[str, float]:
    """The sum of values over the parameters of each kind; kinds has those of each parameter."""
    sums: dict[str, float] = defaultdict(float)
    for names, value in zip(kinds, values, strict=True):
        for name in names:
            sums[name] += value
    return dict(sums)
