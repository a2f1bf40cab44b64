"""What a run keeps in its `checkpoint/`: the state to go on from, the one before it, and its final
weights.

All are written whole or not at all, and checked by the checksums inside them when they are read:
torch itself ignores those and takes a weight whose bits have flipped.
"""

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretune.whole_files import atomic_write

CHECKPOINT_FILE = "state.pt"
"""Weights, moments and all else that a run needs to go on, bit for bit."""
PREVIOUS_FILE = "state.previous.pt"
"""The checkpoint before the newest: to go on from where that one is damaged."""
MODEL_FILE = "model.pt"
"""Weights of a finished run: the state_dict of its model."""


def write_whole(path: Path, value: Any, *, previous: Path | None = None) -> None:
    """Writes what torch can save so that a reader sees the old file or the new one, never a part.

    Makes the folder. previous is where the old file goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # By a file: torch writes the name of a path into what it saves.
    with atomic_write(path, previous=previous) as partial, partial.open("wb") as file:
        torch.save(value, file)


def write_checkpoint(directory: Path, state: dict[str, Any]) -> None:
    """Writes the newest checkpoint; the one that was the newest stays beside it."""
    path = directory / CHECKPOINT_FILE
    write_whole(path, state, previous=directory / PREVIOUS_FILE)


def checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints of a directory, the newest first; they may be damaged."""
    paths = (directory / name for name in (CHECKPOINT_FILE, PREVIOUS_FILE))
    return [path for path in paths if path.is_file()]


def checkpoint_step(directory: Path) -> int | None:
    """Returns the number of updates in the newest sound checkpoint of a directory; None without."""
    for path in checkpoints(directory):
        with suppress(ValueError):
            return int(peek(path)["step"])
    return None


def remove_checkpoints(directory: Path) -> None:
    """Removes what a run no longer goes on from."""
    for path in checkpoints(directory):
        path.unlink(missing_ok=True)


def peek(path: Path) -> dict[str, Any]:
    """Returns a checkpoint with its weights left on disk; ValueError for a damaged one."""
    return _read_state(path, "cpu", mmap=True)


def _read_state(path: Path, device: str | torch.device, *, mmap: bool = False) -> dict[str, Any]:
    cure = "remove it to train its run from the start"
    state = _read(path, "be a checkpoint", cure, device=device, mmap=mmap)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError(f"{path} must be a checkpoint, got another file of torch's; {cure}.")
    return state


def open_checkpoint(restore: Path, device: torch.device) -> tuple[Path, dict[str, Any]]:
    """Returns the checkpoint at a path, or the newest sound one of a directory, and its path.

    Raises ValueError where there is none, or none that isn't damaged.
    """
    paths = [restore] if restore.is_file() else checkpoints(restore)
    if not paths:
        raise ValueError(
            f"restore must hold a checkpoint, got {restore} without {CHECKPOINT_FILE}."
        )
    for path in paths[:-1]:
        try:
            return path, _read_state(path, device)
        except ValueError:
            continue
    return paths[-1], _read_state(paths[-1], device)


def read_model(directory: Path) -> dict[str, Tensor]:
    """Returns the final weights in a directory, on the CPU; ValueError for a damaged file."""
    return _read(directory / MODEL_FILE, "hold a run's final weights", "train the run again")


def _read(
    path: Path,
    what: str,
    cure: str,
    *,
    device: str | torch.device = "cpu",
    mmap: bool = False,
) -> Any:
    try:
        _check_sums(path)
        # A machine without a GPU may read what one with a GPU wrote.
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{path} must {what}, got a damaged file ({type(error).__name__}: {reason}); {cure}."
        ) from None


def _check_sums(path: Path) -> None:
    """Raises OSError or RuntimeError where a part of a file isn't the one that was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # Whatever zipfile makes of random bytes.
        raise RuntimeError(str(error) or type(error).__name__) from None
    if broken:
        raise RuntimeError(f"{broken} has changed since it was written")
