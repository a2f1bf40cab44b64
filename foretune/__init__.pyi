"""The public names and where they live: the table that `__init__.py` loads them from."""

from .analysis.across_scale.prediction import predict as predict
from .analysis.laws.laws import fit as fit
from .analysis.measures.sensitivity import lr_sensitivity as lr_sensitivity
from .analysis.measures.sensitivity import sensitivity_table as sensitivity_table
from .analysis.records.load import load as load
from .tuner.config.override import override as override
from .tuner.config.resolve import resolve as resolve
from .tuner.config.run import Run as Run
from .tuner.sweeps.sweep import sweep as sweep
from .tuner.training.train import train as train
from .tuner.watch.watch import Watch as Watch

__version__: str
