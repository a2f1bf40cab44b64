"""A smaller micro-batch for a run whose memory ran out, beside the run and not in it.

So its id, its config and its checkpoints stay, and a later worker knows. Gradients are accumulated
over more parts: the same but for the order of floating-point sums.
"""

import json
from pathlib import Path

import torch

from foretune.tuner.config.run import Run
from foretune.tuner.records.files import write_json

MEMORY_FILE = "memory.json"
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in plain RuntimeErrors."""


def memory_error(error: BaseException) -> bool:
    """Whether an error says that there is no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def halve(run_dir: Path, run: Run, why: str) -> int:
    """Makes the micro-batch of a run half as large; returns it, or 0 where it is so already or 1.

    why is how its memory ran out.
    """
    if (run_dir / MEMORY_FILE).exists() or run.micro_batch_size == 1:
        return 0
    half = next(n for n in range(run.micro_batch_size // 2, 0, -1) if run.batch_size % n == 0)
    write_json(run_dir / MEMORY_FILE, {"micro_batch_size": half, "why": why})
    return half


def micro_batch_of(run_dir: Path, run: Run) -> int:
    """Returns how many samples of a run go through at once."""
    size = _facts(run_dir).get("micro_batch_size")
    if isinstance(size, int) and 0 < size <= run.batch_size and run.batch_size % size == 0:
        return size
    return run.micro_batch_size


def note(run_dir: Path, run: Run) -> str:
    """Returns that memory ran out and what came of it, or nothing where it didn't."""
    size = micro_batch_of(run_dir, run)
    if size == run.micro_batch_size:
        return ""
    why = _facts(run_dir).get("why", "memory ran out")
    return f"at a micro-batch of {size} instead of {run.micro_batch_size}, since {why}"


def _facts(run_dir: Path) -> dict[str, object]:
    try:
        value = json.loads((run_dir / MEMORY_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
