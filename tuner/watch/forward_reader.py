"""Reads one forward pass of any model: hooks while a reading is due, and nothing otherwise.

A model around which torch.compile stands runs as it is compiled; what is read is a pass of its own,
not compiled, over a part of the batch, with the random numbers and buffers put back.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foretune.models import Tap
from foretune.tuner.training.readings import Readings
from foretune.tuner.training.taps import watched
from foretune.tuner.watch.attention_calls import Attention, AttentionCalls
from foretune.tuner.watch.discovery import Parts, batch_of, devices, first_tensor, logits_of
from foretune.tuner.watch.seen import Seen

PART = 4
"""A pass of its own reads one in so many of the batch's samples, at least one."""


class ForwardReader:
    """Reads the forward passes of a model while it is asked to."""

    def __init__(self, model: nn.Module, parts: Parts, readings: Readings):
        self.seen = Seen()
        self._model, self._parts, self._readings = model, parts, readings
        self._kinds = {tap.kind for tap in parts.taps}
        self._stack: list[int] = []
        self._layer: int | None = None
        self._handles: ExitStack | None = None
        self._inside: ExitStack | None = None

    @property
    def reading(self) -> bool:
        """Whether the next forward passes are read."""
        return self._handles is not None

    def begin(self) -> None:
        """Reads the forward passes from now on."""
        self.end()
        self._readings.clear()
        self.seen.passes = 0
        handles = self._handles = ExitStack()
        if self._parts.compiled:
            handles.enter_context(self._noted())
        else:
            handles.enter_context(self._hooked())

    def end(self) -> None:
        """Reads no more."""
        if self._handles is not None:
            self._leave()
            self._handles.close()
            self._handles = None

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Sees what the compiled model is given, and reads a pass of its own over a part of it."""
        model, own = self._model, self._model._compiled_call_impl

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._listens() and self.seen.passes == 0:
                self._read_alone(args, kwargs)

        if own is None:
            handle = model.register_forward_pre_hook(before, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()
            return

        def noting(*args: Any, **kwargs: Any) -> Any:
            before(model, args, kwargs)
            return own(*args, **kwargs)

        object.__setattr__(model, "_compiled_call_impl", noting)
        try:
            yield
        finally:
            object.__setattr__(model, "_compiled_call_impl", own)

    def _read_alone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        root = self._parts.root
        whole = batch_of(args, kwargs)
        size = len(whole) if whole is not None else 0
        args, kwargs = _part(args, size), _part(kwargs, size)
        buffers = {name: buffer.clone() for name, buffer in root.named_buffers()}
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            torch.random.fork_rng([d.index or 0 for d in devices(root)]),
            torch.compiler.set_stance("force_eager"),
            self._hooked(alone=True),
        ):
            warnings.filterwarnings("ignore", "flex_attention called without")
            try:
                root(*args, **kwargs)
            finally:
                for name, buffer in root.named_buffers():
                    buffer.copy_(buffers[name])
        if whole is not None:
            self.seen.shape = tuple(whole.shape)

    @contextmanager
    def _hooked(self, *, alone: bool = False) -> Iterator[None]:
        """Hooks on the model and its blocks; on all that is in it while names are needed."""
        parts = self._parts
        numbers = {id(block): layer for layer, (_, block) in enumerate(parts.blocks)}
        modules = [parts.root, *(block for _, block in parts.blocks)]
        if max(self.seen.attention, default=len(parts.blocks)) >= len(parts.blocks):
            modules = list(parts.root.modules())

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if torch.compiler.is_compiling():
                return
            if module is parts.root and not self._stack and (alone or self._listens()):
                self._enter(args, kwargs)
            if self._inside is not None:
                self._stack.append(id(module))
                self._layer = numbers.get(id(module), self._layer)

        def after(module: nn.Module, _: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or self._inside is None or not self._stack:
                return
            self._stack.pop()
            layer = numbers.get(id(module))
            with torch.no_grad():
                if layer is not None:
                    self._layer = None
                    self._read_block(output, layer)
                if module is parts.root:
                    self._leave()
                    self._read_logits(output)

        with ExitStack() as handles:
            for module in modules:
                for handle in (
                    module.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
                    module.register_forward_hook(after, always_call=True),
                ):
                    handles.callback(handle.remove)
            yield

    def _listens(self) -> bool:
        """Whether this is a pass of training: a validation's isn't read."""
        return self._parts.root.training and torch.is_grad_enabled()

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.seen.passes += 1
        batch = batch_of(args, kwargs)
        if batch is not None:
            self.seen.shape, self.seen.is_text = tuple(batch.shape), not batch.is_floating_point()
        inside = self._inside = ExitStack()
        inside.enter_context(watched(self._parts.taps, self._read_tap))
        if "attention" not in self._kinds:
            first = not self.seen.attention
            inside.enter_context(AttentionCalls(self._read_attention, whole=first))

    def _leave(self) -> None:
        if self._inside is not None:
            self._inside.close()
        self._inside, self._layer = None, None
        self._stack.clear()

    def _read_tap(self, tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        if tap.kind == "attention":
            q_BHTK = tensors[0]
            self._note_attention(
                tap.layer, "a tap", q_BHTK.shape[-1], q_BHTK.shape[-2], q_BHTK.shape[-3]
            )
        elif tap.kind == "logits":
            self.seen.logits = tuple(tensors[0].shape)
        self._readings.read_tap(tap, tensors)

    def _read_attention(self, found: Attention) -> None:
        name = self._parts.names.get(self._stack[-1], "") if self._stack else ""
        layer = self._layer
        if layer is None:
            layer = self._layer_outside(name)
        if layer not in self.seen.attention:
            self._note_attention(
                layer, f"{name} by {found.how}", found.head_dim, found.context, found.heads
            )
        self.seen.stride = max(self.seen.stride, found.stride)
        if found.stride > 1 and found.largest is not None:
            read = float(found.logits.amax())
            share = float(found.largest) / read - 1 if read > 0 else 0.0
            self.seen.shortfall = max(self.seen.shortfall, share)
        self._readings.read_attention(found.logits, layer)

    def _layer_outside(self, name: str) -> int:
        """The number of a module outside of the blocks: they follow these, as they are called."""
        first = len(self._parts.blocks)
        known = {
            text.partition(" by ")[0]: layer
            for layer, text in self.seen.attention.items()
            if layer >= first
        }
        return known.get(name, first + len(known))

    def _note_attention(self, layer: int, how: str, dim: int, context: int, heads: int) -> None:
        seen = self.seen
        seen.attention.setdefault(layer, how)
        seen.head_dim, seen.context, seen.heads = dim, max(context, seen.context), heads

    def _read_block(self, output: Any, layer: int) -> None:
        stream = first_tensor(output)
        if stream is not None and "block_output" not in self._kinds:
            self._readings.read_output(stream.detach(), layer)

    def _read_logits(self, output: Any) -> None:
        logits = logits_of(output)
        if logits is not None and "logits" not in self._kinds:
            self.seen.logits = tuple(logits.shape)
            self._readings.read_logits(logits.detach())


def _part(value: Any, size: int) -> Any:
    """A part of every tensor that has the batch on its first axis."""
    if isinstance(value, Tensor):
        return value[: max(1, size // PART)] if value.ndim and len(value) == size else value
    if isinstance(value, Mapping):
        return {name: _part(one, size) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_part(one, size) for one in value)
    return value
