"""Where a run is computed: the CPU or a GPU, by name."""

import torch


def pick_device(name: str) -> torch.device:
    """Returns the device called auto (a GPU where there is one), cpu, cuda or cuda:N.

    Raises ValueError where it isn't there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be there, got {name} on a machine without CUDA; use cpu.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be there, got {name} on a machine with {torch.cuda.device_count()} GPUs."
        )
    return torch.device(name)
