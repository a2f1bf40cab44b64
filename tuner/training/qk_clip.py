"""QK-clip: after an update, heads whose attention logits are too large get smaller q and k.

Shapes: B sequences, T positions, H heads, K head dimension, D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foretune.models import Tap
from foretune.tuner.config.run import Run
from foretune.tuner.training.taps import attention_logits, watched


class QKClip:
    """Keeps each head's largest logit S of a batch near tau (Kimi K2 2025, for plain attention).

    Where S > tau, the rows of the head that make q and k are scaled by sqrt(tau / S) each, so that
    the same batch would have given S = tau before the update. Logits are scaled, masked and not
    capped. In a quantized layer the weights behind the grid are scaled.
    """

    def __init__(self, model: nn.Module, tau: float, *, capped: bool):
        """capped says whether the model caps its attention logits, so that taps show those.

        Raises ValueError for a model without an attention tap beside a weight `qkv` of 3 D rows.
        """
        self.tau, self.capped = tau, capped
        self.weights = dict(_attentions(model))
        if not self.weights:
            raise ValueError(
                "optimizer.qk_clip needs a model with an attention tap and a layer qkv of 3 D "
                "rows side by side in a module, got none; set optimizer.qk_clip=0."
            )
        self.largest_H: dict[Tap, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Reads the largest logits of the forward passes inside, over all of them."""
        self.largest_H.clear()
        with watched(self.weights, self._read):
            yield

    def _read(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        q_BHTK, k_BHTK, *held = tensors
        if held and not self.capped:
            logits = held[0]
        else:
            logits = attention_logits(q_BHTK, k_BHTK, scale=tap.scale, causal=tap.causal)
        batch, heads = q_BHTK.shape[:2]
        largest_H = logits.reshape(batch, heads, -1).amax((0, 2))
        before = self.largest_H.get(tap)
        self.largest_H[tap] = largest_H if before is None else torch.maximum(before, largest_H)

    @torch.no_grad()
    def clip(self) -> int:
        """Scales the heads of too large logits; returns how many these were."""
        clipped = torch.zeros((), dtype=torch.int64)
        for tap, largest_H in self.largest_H.items():
            over_H = torch.isfinite(largest_H) & (largest_H > self.tau)
            factor_H = torch.where(over_H, (self.tau / largest_H).sqrt(), 1.0)
            for parameter in self.weights[tap]:
                qkv_3HKI = parameter.data.view(3, len(factor_H), -1, parameter[0].numel())
                qkv_3HKI[:2] *= factor_H.view(-1, 1, 1)
            clipped = over_H.sum() + clipped.to(over_H.device)
        return int(clipped)


def qk_clip(model: nn.Module, run: Run) -> QKClip | None:
    """Returns what clips the queries and keys of a run's model, or None where nothing does."""
    if not run.optimizer.qk_clip:
        return None
    capped = bool(getattr(run.model, "attention_softcap", 0))
    return QKClip(model, run.optimizer.qk_clip, capped=capped)


def _attentions(model: nn.Module) -> Iterator[tuple[Tap, list[nn.Parameter]]]:
    """Attention taps, each with the weight, and the bias where there is one, of its layer qkv."""
    for module in model.modules():
        taps = [m for m in module.children() if isinstance(m, Tap) and m.kind == "attention"]
        layer = getattr(module, "qkv", None)
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if not taps or not isinstance(weight, nn.Parameter) or weight.ndim != 2:
            continue
        if weight.shape[0] % 3 == 0:
            yield taps[0], [weight, *([bias] if isinstance(bias, nn.Parameter) else [])]
