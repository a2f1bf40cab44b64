"""The public names and where they live: the table that `__init__.py` loads them from."""

from .config.override import override as override
from .config.resolve import resolve as resolve
from .config.run import Run as Run
from .planning.execution import Execution as Execution
from .sweeps.sweep import SweepResult as SweepResult
from .sweeps.sweep import resume as resume
from .sweeps.sweep import sweep as sweep
from .training.outcome import Outcome as Outcome
from .training.train import train as train
