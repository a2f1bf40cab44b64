"""Runs, training and sweeps. Ray and MLflow are loaded when a sweep is asked for, not before."""

from typing import TYPE_CHECKING, Any

from tuner.config import Run, override
from tuner.outcome import Outcome
from tuner.resolve import resolve
from tuner.train import train

if TYPE_CHECKING:
    from tuner.execution import Execution
    from tuner.sweep import SweepResult, resume, sweep

__all__ = [
    "Execution",
    "Outcome",
    "Run",
    "SweepResult",
    "override",
    "resolve",
    "resume",
    "sweep",
    "train",
]

_LAZY = {
    "Execution": "tuner.execution",
    "SweepResult": "tuner.sweep",
    "resume": "tuner.sweep",
    "sweep": "tuner.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
