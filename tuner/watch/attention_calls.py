"""Attention logits of any model, read off the calls by which it computes them.

While a model runs inside `AttentionCalls`, PyTorch's functions pass by it. Of a fused call
(`F.scaled_dot_product_attention`, `nn.MultiheadAttention`, `flex_attention`) the product of queries
and keys is computed once more, without gradients; attention that is written out is known by a
softmax over a product of two activations, and read as it is.

Shapes: B sequences, H heads, T queries, S keys, K head dimension.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

ELEMENTS = 1 << 23
"""Logits of one call that are computed at once; of more, only those of some queries are."""

_SOFTMAX = {torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax}
_PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm,
    torch.baddbmm, Tensor.baddbmm, torch.einsum,
}  # fmt: skip
_SDPA = inspect.Signature(
    [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, default in (
            ("query", None), ("key", None), ("value", None), ("attn_mask", None),
            ("dropout_p", 0.0), ("is_causal", False), ("scale", None), ("enable_gqa", False),
        )
    ]
)  # fmt: skip
_MULTIHEAD = inspect.signature(F.multi_head_attention_forward)


@dataclass(frozen=True, slots=True)
class Attention:
    """The logits of one call."""

    logits: Tensor
    """(..., T, S), float32, scaled and masked: -inf, or very low, where a key is masked."""
    head_dim: int
    context: int
    """T, the number of queries, all of them."""
    heads: int
    """1 where the call has no axis for them."""
    how: str
    """The function that was called."""
    stride: int = 1
    """The queries read are one in so many, the last one included."""
    largest: Tensor | None = None
    """Over all queries, where `whole` asked for it and not all are in `logits`."""


class AttentionCalls(TorchFunctionMode):
    """Calls read for the attention of every forward pass inside."""

    def __init__(
        self,
        read: Callable[[Attention], None],
        *,
        elements: int = ELEMENTS,
        whole: bool = False,
    ):
        """read is called with each call's logits; whole also looks through the queries left out."""
        super().__init__()
        self._read, self._elements, self._whole = read, elements, whole
        self._product: tuple[torch.Size, int] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not torch.compiler.is_compiling():
            self._note(func, args, kwargs, result)
        return result

    def _note(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        if func in _PRODUCTS:
            self._note_product(args, kwargs, result)
            return
        reader = None
        if func is F.scaled_dot_product_attention:
            reader = self._fused
        elif func is F.multi_head_attention_forward:
            reader = self._multihead
        elif getattr(func, "__name__", "") == "flex_attention":
            reader = self._flex
        elif func in _SOFTMAX:
            reader = self._softmax
        if reader is None:
            return
        device = next(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        # Autocast would round float32 products to 8 bits.
        with torch.no_grad(), torch.autocast(device, enabled=False):
            found = reader(args, kwargs)
            if found is not None:
                self._read(found)

    def _note_product(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Remembers a product of two activations: a softmax over it may be attention."""
        flat = [*args, *kwargs.values()]
        flat += [x for a in flat if isinstance(a, list | tuple) for x in a]
        factors = [x for x in flat if isinstance(x, Tensor)][-2:]
        alike = len(factors) == 2 and all(
            x.ndim >= 3 and not isinstance(x, nn.Parameter) for x in factors
        )
        if alike and isinstance(result, Tensor):
            self._product = result.shape, factors[0].shape[-1]

    def _softmax(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attention | None:
        x = args[0] if args else kwargs.get("input")
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        product, self._product = self._product, None
        if not isinstance(x, Tensor) or product is None or x.shape != product[0]:
            return None
        if dim not in (-1, x.ndim - 1):
            return None
        heads = x.shape[-3] if x.ndim > 3 else 1
        return Attention(x.float(), product[1], x.shape[-2], heads, "a softmax over a product")

    def _fused(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attention:
        given = _SDPA.bind(*args, **kwargs)
        given.apply_defaults()
        call = given.arguments
        q, k = call["query"], call["key"]
        if call["enable_gqa"]:
            k = _repeated(k, q)
        scale = call["scale"] if call["scale"] is not None else q.shape[-1] ** -0.5
        mask = call["attn_mask"]
        return self._product_of(
            q, k, scale, masks=[] if mask is None else [mask], causal=bool(call["is_causal"]),
            how="F.scaled_dot_product_attention",
        )  # fmt: skip

    def _multihead(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attention | None:
        given = _MULTIHEAD.bind(*args, **kwargs)
        given.apply_defaults()
        call = given.arguments
        if call["bias_k"] is not None or call["static_k"] is not None or call["add_zero_attn"]:
            return None
        q, k = _projected(call)
        heads = call["num_heads"]
        masks = [] if call["attn_mask"] is None else [_by_head(call["attn_mask"], heads)]
        if call["key_padding_mask"] is not None:
            masks.append(call["key_padding_mask"][..., None, None, :])
        masks = [
            m.logical_not() if m.dtype == torch.bool else m for m in masks
        ]  # True is left out.
        q, k = (x.unflatten(-1, (heads, -1)).transpose(0, -2) for x in (q, k))
        if q.ndim == 4:  # (H, B, T, K) from (T, B, E).
            q, k = q.transpose(0, 1), k.transpose(0, 1)
        return self._product_of(
            q, k, q.shape[-1] ** -0.5, masks=masks, causal=False, how="nn.MultiheadAttention"
        )

    def _flex(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Attention:
        q, k, _, change, block_mask, scale, _, change_buffers, mask_buffers = args
        if q.shape[-3] != k.shape[-3]:
            k = _repeated(k, q)
        found = self._product_of(q, k, scale, masks=[], causal=False, how="flex_attention")
        logits, places = found.logits, _places(found, k)
        if change is not None:
            changed = _at_each_place(lambda *at: change(*at, *change_buffers), with_logits=True)
            logits = changed(logits, *places)
        if block_mask is not None:
            allowed = _at_each_place(lambda *at: block_mask[-1](*at, *mask_buffers))
            logits = logits.masked_fill(allowed(*places).logical_not(), -math.inf)
        return replace(found, logits=logits, largest=None)

    def _product_of(
        self, q: Tensor, k: Tensor, scale: float, *, masks: list[Tensor], causal: bool, how: str
    ) -> Attention:
        """The logits of queries (..., T, K) and keys (..., S, K); a mask is one of SDPA's."""
        queries = q.shape[-2]
        stride = math.ceil(q.shape[:-1].numel() * k.shape[-2] / self._elements)
        heads = q.shape[-3] if q.ndim > 3 else 1

        def read(rows: Tensor) -> Tensor:
            return _logits(q, k, scale, rows, masks=masks, causal=causal)

        first = (queries - 1) % stride
        logits = read(_rows(queries, stride, q.device))
        largest = logits.amax()
        if stride > 1 and self._whole:
            for other in set(range(stride)) - {first}:
                rows = torch.arange(other, queries, stride, device=q.device)
                largest = torch.maximum(largest, read(rows).amax())
        return Attention(logits, q.shape[-1], queries, heads, how, stride, largest)


def _logits(
    q: Tensor, k: Tensor, scale: float, rows: Tensor, *, masks: Sequence[Tensor], causal: bool
) -> Tensor:
    """Scaled and masked logits of some queries."""
    all_rows = len(rows) == q.shape[-2]
    some = q if all_rows else q.index_select(-2, rows)
    logits = torch.matmul(some.float() * scale, k.float().mT)
    if causal:
        later = torch.arange(k.shape[-2], device=q.device) > rows[:, None]
        logits = logits.masked_fill(later, -math.inf)
    for mask in masks:
        by_query = mask.ndim > 1 and mask.shape[-2] > 1
        here = mask.index_select(-2, rows) if by_query and not all_rows else mask
        if here.dtype == torch.bool:
            logits = logits.masked_fill(here.logical_not(), -math.inf)
        else:
            logits = logits + here.float()
    return logits


def _rows(queries: int, stride: int, device: torch.device) -> Tensor:
    """Every stride-th query, the last one included."""
    return torch.arange((queries - 1) % stride, queries, stride, device=device)


def _repeated(k: Tensor, q: Tensor) -> Tensor:
    """Keys of groups of heads, one for each head."""
    return k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)


def _projected(call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Queries and keys (T, B, E) of a call of `F.multi_head_attention_forward`."""
    width = call["embed_dim_to_check"]
    if call["use_separate_proj_weight"]:
        weights = call["q_proj_weight"], call["k_proj_weight"]
    else:
        weights = call["in_proj_weight"][:width], call["in_proj_weight"][width : 2 * width]
    bias = call["in_proj_bias"]
    biases = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
    tensors = call["query"].float(), call["key"].float()
    q, k = (
        F.linear(x, weight.float(), None if bias is None else bias.float())
        for x, weight, bias in zip(tensors, weights, biases, strict=True)
    )
    return q, k


def _by_head(mask: Tensor, heads: int) -> Tensor:
    """A mask (T, S) as it is, one of (B H, T, S) as (B, H, T, S)."""
    return mask if mask.ndim == 2 else mask.unflatten(0, (-1, heads))


def _places(found: Attention, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of sequences, heads, queries and keys of logits (B, H, T, S)."""
    sequences, heads, device = found.logits.shape[0], found.logits.shape[1], k.device
    rows = _rows(found.context, found.stride, device)
    first, second = torch.arange(sequences, device=device), torch.arange(heads, device=device)
    return first, second, rows, torch.arange(k.shape[-2], device=device)


def _at_each_place(
    function: Callable[..., Tensor], *, with_logits: bool = False
) -> Callable[..., Tensor]:
    """A function of one sequence, head, query and key, as one of all of them."""
    for axis in (3, 2, 1, 0):
        places = tuple(0 if at == axis else None for at in range(4))
        function = torch.vmap(function, in_dims=((0, *places) if with_logits else places))
    return function
