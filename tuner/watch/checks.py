"""What `Watch` is given, checked at the door: a sentence each, with what to do."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def check_watched(model: Any, optimizer: Any, total_steps: Any, telemetry_every: Any) -> None:
    """Raises ValueError for what can't be watched."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model must be the torch.nn.Module that is trained, got {type(model).__name__}."
        )
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "model must not be inside nn.DataParallel, whose copies live for one pass; use "
            "DistributedDataParallel."
        )
    several = isinstance(optimizer, Sequence) and all(isinstance(o, Optimizer) for o in optimizer)
    if optimizer is not None and not isinstance(optimizer, Optimizer) and not several:
        raise ValueError(
            f"optimizer must be a torch optimizer, a list of them or None, got "
            f"{type(optimizer).__name__}."
        )
    for name, value in (("total_steps", total_steps), ("telemetry_every", telemetry_every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}.")


def number_of(name: str, value: Any) -> float:
    """Returns a number or a tensor of one element as a float; ValueError for anything else."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(
            f"{name} must be one number, got a tensor of shape {tuple(value.shape)}; give its mean."
        )
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a number, got {type(value).__name__} {value!r:.60}; give loss.item()."
        ) from None


def is_broken(name: str, value: float) -> bool:
    """Whether a value shows that a run has diverged.

    A gradient may overflow in an update that a scaler then leaves out, and a rate isn't known.
    """
    shows = ("loss", "val_loss", "max_attention_logit", "output_norm", "log")
    return name.startswith(shows) and not math.isfinite(value)


def check_step(step: Any, before: int) -> None:
    """Raises ValueError for a step that doesn't follow the one before; that is -1 at the start."""
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(
            f"step must be a whole number of updates made before, from 0, got {step!r}; count "
            f"updates, not batches."
        )
    if before >= 0 and step != before + 1:
        raise ValueError(
            f"step must count updates one by one, got {step} after {before}; call it once per "
            f"update, after the last backward pass of its batches."
        )
