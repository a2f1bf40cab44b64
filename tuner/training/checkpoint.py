"""What a run keeps in its `checkpoint/`: the state to go on from, and its final weights.

Both are written whole or not at all.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretune.whole_files import atomic_write

CHECKPOINT_FILE = "state.pt"
"""Weights, moments and all else that a run needs to go on, bit for bit."""
MODEL_FILE = "model.pt"
"""Weights of a finished run: the state_dict of its model."""


def write_whole(path: Path, value: Any) -> None:
    """Writes what torch can save so that a reader sees the old file or the new one, never a part.

    Makes the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # By a file: torch writes the name of a path into what it saves.
    with atomic_write(path) as partial, partial.open("wb") as file:
        torch.save(value, file)


def checkpoint_step(directory: Path) -> int | None:
    """Returns the number of updates in the checkpoint of a directory, or None without one."""
    state = peek(directory)
    return None if state is None else int(state["step"])


def peek(directory: Path) -> dict[str, Any] | None:
    """Returns the checkpoint of a directory, its weights left on disk, or None without one.

    Raises ValueError for a damaged file.
    """
    path = directory / CHECKPOINT_FILE
    if not path.is_file():
        return None
    return _read(path, "be a checkpoint", "remove it to train its run from the start", mmap=True)


def read_model(directory: Path) -> dict[str, Tensor]:
    """Returns the final weights in a directory, on the CPU; ValueError for a damaged file."""
    return _read(directory / MODEL_FILE, "hold a run's final weights", "train the run again")


def _read(path: Path, what: str, cure: str, *, mmap: bool = False) -> dict[str, Any]:
    try:
        # A machine without a GPU may read what one with a GPU wrote.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} must {what}, got a damaged file ({type(error).__name__}: {reason}); {cure}."
        ) from None
