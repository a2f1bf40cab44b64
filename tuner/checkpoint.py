"""What a run keeps in its `checkpoint/`: the state to go on from, and its final weights.

Both are written whole or not at all.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHECKPOINT_FILE = "state.pt"
"""Weights, moments and all else that a run needs to go on, bit for bit."""
MODEL_FILE = "model.pt"
"""Weights of a finished run: the state_dict of its model."""


def write_whole(path: Path, value: Any) -> None:
    """Writes what torch can save so that a reader sees the old file or the new one, never a part.

    Makes the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def checkpoint_step(directory: Path) -> int | None:
    """Returns the number of updates in the checkpoint of a directory, or None without one."""
    path = directory / CHECKPOINT_FILE
    return int(torch.load(path, weights_only=True)["step"]) if path.is_file() else None


def read_model(directory: Path) -> dict[str, Tensor]:
    """Returns the final weights in a directory, on the CPU; ValueError for a damaged file."""
    path = directory / MODEL_FILE
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} must hold a run's final weights, got a damaged file "
            f"({type(error).__name__}: {reason}); train the run again."
        ) from None
    return weights
