"""A user's model that fails as its config says, in a file of its own, and in a worker alone."""

from pathlib import Path

FILE = """
import ctypes, os, sys, threading, time
from dataclasses import dataclass

import torch
from torch import nn

from foretune import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    width: int = 8
    vocab_size: int = 256
    how: str = "none"
    at: int = 6
    healed: str = ""

    def build(self):
        if self.how == "build" and "RAY_RAYLET_PID" in os.environ:
            raise RuntimeError("no parts")
        return Net(self)


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.calls = config, 0
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size)

    def forward(self, tokens):
        self.calls += 1
        if self.calls > self.config.at and not self.healed():
            fail(self.config.how, tokens)
        return self.head(self.embedding(tokens))

    def state_dict(self, *args, **kwargs):
        if self.config.how == "save" and self.calls > self.config.at and not self.healed():
            raise RuntimeError("not for keeping")
        return super().state_dict(*args, **kwargs)

    def healed(self):
        return self.config.healed and os.path.exists(self.config.healed)


def fail(how, tokens):
    if how == "forward":
        raise RuntimeError("out of order")
    if how == "sys.exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "os._exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "hang":
        threading.Event().wait()
    if how == "hang in C":
        ctypes.PyDLL(None).pause()
    if how == "leak" and len(tokens) > 2:
        torch.empty(1 << 50)
    if how == "leak 4 GB":
        kept = []
        for _ in range(64):
            kept.append(torch.ones(1 << 24))  # 64 MiB, for good.
            time.sleep(0.1)
    if how == "leak always":
        torch.empty(1 << 50)


RUN = Run(model=Failing(), steps=40, eval_every=10, batch_size=4, micro_batch_size=4)
"""


def line_of(text: str) -> int:
    """Number of the file's line that holds a text."""
    return next(n for n, line in enumerate(FILE.splitlines(), 1) if text in line)


def write_failing(folder: Path) -> Path:
    """Writes the file into a folder; returns its path."""
    path = folder / "failing.py"
    path.write_text(FILE)
    return path


def sweep_of(*kinds: str, out: str = "sweep") -> tuple[str, ...]:
    """A command that sweeps over ways to fail, started beside the file."""
    return (
        *("sweep", "lr", "--preset", "failing.py:RUN", "--grid", "optimizer.lr=1e-2"),
        f"model.how={','.join(kinds)}",
        *("--drop", "model.size", "model.qk_norm", "--set", "data.validation_sequences=8"),
        *("--checkpoint-seconds", "0", "--out", out),
    )
