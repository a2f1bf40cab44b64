"""What a model has that a forecast reads: its blocks, taps, head, and N; found by looking at it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from foretune.models import Tap


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a model that are known before it runs."""

    root: nn.Module
    """The model itself, without what DistributedDataParallel or torch.compile put around it."""
    blocks: tuple[tuple[str, nn.Module], ...]
    """The layers of its longest list of alike modules, by their paths; none where there is none."""
    taps: tuple[Tap, ...]
    n_params: int
    """N: parameters without embeddings and head."""
    n_params_total: int
    n_params_at_work: int
    """N and the head: what every position passes."""
    head: str = ""
    """Path of the layer that N leaves out as the head; empty where none was found."""
    compiled: bool = False
    """Whether torch.compile stands around the model or a part of it."""
    names: dict[int, str] = field(default_factory=dict, repr=False)
    """Paths by id of the module."""


def look_at(model: nn.Module) -> Parts:
    """Returns the parts of a model."""
    root, compiled = _unwrapped(model)
    named = dict(root.named_modules())
    compiled = compiled or any(_is_compiled(module) for module in named.values())
    head = _head(root, named)
    total, inside, at_work = _counts(root, named[head] if head else None)
    return Parts(
        root=root,
        blocks=_blocks(named),
        taps=tuple(m for m in named.values() if isinstance(m, Tap)),
        n_params=inside,
        n_params_total=total,
        n_params_at_work=at_work,
        head=head,
        compiled=compiled,
        names={id(module): name for name, module in named.items()},
    )


def _unwrapped(model: nn.Module) -> tuple[nn.Module, bool]:
    """The model inside of wrappers, and whether one of them is torch.compile's."""
    compiled = False
    while True:
        inner = model._modules.get("_orig_mod")
        if inner is not None:
            model, compiled = inner, True
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model, compiled


def _is_compiled(module: nn.Module) -> bool:
    inside = "_orig_mod" in module._modules
    return inside or getattr(module, "_compiled_call_impl", None) is not None


def _blocks(named: dict[str, nn.Module]) -> tuple[tuple[str, nn.Module], ...]:
    """The longest list of alike modules; of equal ones that with the most parameters.

    One block alone counts where it is in a list, or no model of one layer would have any.
    """
    best, score = (), (0, 0)
    for name, module in named.items():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or not len(module):
            continue
        children = list(module.named_children())
        inner = [_unwrapped(child)[0] for _, child in children]
        alike = len({type(child) for child in inner}) == 1 and _has_layers(inner[0])
        if len(children) == 1 and isinstance(module, nn.Sequential):
            continue
        found = (len(children), _size(module))
        if alike and found > score:
            best, score = tuple((_join(name, key), child) for key, child in children), found
    return best


def _has_layers(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _head(root: nn.Module, named: dict[str, nn.Module]) -> str:
    """Path of the output layer: what Hugging Face's models name, else the last linear layer
    outside of the blocks."""
    asked = getattr(root, "get_output_embeddings", None)
    if callable(asked):
        try:
            found = asked()
        except (AttributeError, NotImplementedError):  # How these say that they have none.
            found = None
        if isinstance(found, nn.Module):
            return next((name for name, module in named.items() if module is found), "")
    blocks = tuple(f"{name}." for name, _ in _blocks(named))
    products = [
        name
        for name, module in named.items()
        if _is_product(module) and not (blocks and name.startswith(blocks))
    ]
    return products[-1] if products else ""


def _is_product(module: nn.Module) -> bool:
    """Whether a module is a linear layer, by its weight: many libraries have their own class."""
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, Tensor) and weight.ndim == 2
    return matrix and not isinstance(module, nn.Embedding) and not _has_layers(module)


def _counts(root: nn.Module, head: nn.Module | None) -> tuple[int, int, int]:
    """All parameters, N, and N with the head; one that two modules share counts once."""
    own = {id(p) for p in head.parameters()} if head is not None else set()
    outside = own | {id(m.weight) for m in root.modules() if isinstance(m, nn.Embedding)}
    parameters = list(root.parameters())
    total = sum(p.numel() for p in parameters)
    inside = sum(p.numel() for p in parameters if id(p) not in outside)
    return total, inside, inside + sum(p.numel() for p in parameters if id(p) in own)


def logits_of(output: Any) -> Tensor | None:
    """Returns the logits in what a model gives back, as (..., classes); None where there are none.

    The output itself, its `logits`, or the first tensor of floats with an axis for classes in it.
    """
    if isinstance(output, Tensor):
        return output if output.ndim >= 2 and output.is_floating_point() else None
    named = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    values: Iterable[Any] = output.values() if isinstance(output, dict) else ()
    if isinstance(output, list | tuple):
        values = output
    return next((found for value in values if (found := logits_of(value)) is not None), None)


def first_tensor(output: Any) -> Tensor | None:
    """Returns the first tensor of floats in what a block gives back."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    values = output if isinstance(output, list | tuple) else ()
    if isinstance(output, dict):
        values = output.values()
    return next((found for value in values if (found := first_tensor(value)) is not None), None)


def batch_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Returns what a model is given: its first tensor, as Hugging Face's `input_ids`."""
    for value in (*args, kwargs.get("input_ids"), kwargs.get("pixel_values"), *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim >= 1:
            return value
    return None


def devices(model: nn.Module) -> list[torch.device]:
    """Returns the devices that hold a model's parameters, but for the CPU."""
    return list({p.device for p in model.parameters() if p.device.type != "cpu"})
