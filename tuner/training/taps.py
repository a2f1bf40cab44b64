"""Reading taps while a batch passes, and the attention logits that a tap shows.

Shapes: B sequences, T positions, H heads, K head dimension, G = B H.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from foretune.models import Tap

Read = Callable[[Tap, tuple[Tensor, ...]], None]
"""Takes a tap and the tensors that pass it."""


@contextmanager
def watched(taps: Iterable[Tap], read: Read) -> Iterator[None]:
    """Calls read for each pass of a tap inside, without gradients and outside of autocast.

    Others that watch go on seeing the tensors, too.
    """
    before = {tap: tap.watch for tap in taps}
    for tap, other in before.items():
        tap.watch = _after(other, read)
    try:
        yield
    finally:
        for tap, other in before.items():
            tap.watch = other


def _after(other: Read | None, read: Read) -> Read:
    def watch(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        if other is not None:
            other(tap, tensors)
        device = tensors[0].device.type
        with torch.no_grad():
            if not torch.is_autocast_enabled(device):
                read(tap, tensors)
                return
            # Autocast would round float32 products to 8 bits.
            with torch.autocast(device, enabled=False):
                read(tap, tensors)

    return watch


def attention_logits(q_BHTK: Tensor, k_BHTK: Tensor, *, scale: float, causal: bool) -> Tensor:
    """Returns the scaled and masked logits (G, T, T), float32, -inf where a key is masked."""
    q, k = q_BHTK.float().flatten(0, 1), k_BHTK.float().flatten(0, 1)
    mask = _mask(q.shape[-2], k.shape[-2], causal, q.device)
    return torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale)


@lru_cache(maxsize=8)
def _mask(queries: int, keys: int, causal: bool, device: torch.device) -> Tensor:
    mask = torch.zeros(queries, keys, device=device)
    return mask.masked_fill_(torch.ones_like(mask).triu(1).bool(), -torch.inf) if causal else mask


def loudest_pair(q_BHTK: Tensor, k_BHTK: Tensor, *, causal: bool) -> Tensor:
    """Returns |q . k| and the cosine of q and k where |q . k| is largest, shape (2,).

    Of a q or k that is zero the cosine is 0.
    """
    dots = attention_logits(q_BHTK, k_BHTK, scale=1.0, causal=causal)
    dots = torch.where(dots.isneginf(), 0.0, dots)  # Masked.
    positions, keys = dots.shape[1:]
    place = dots.abs().argmax()
    pair, key = place // keys, place % keys
    q_K = q_BHTK.float().flatten(0, 1)[pair // positions, pair % positions]
    k_K = k_BHTK.float().flatten(0, 1)[pair // positions, key]
    cosine = torch.nn.functional.cosine_similarity(q_K, k_K, dim=0)
    return torch.stack((dots.flatten()[place].abs(), cosine))
