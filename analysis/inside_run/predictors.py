"""Every predictor of divergence inside a run by its name: ours, and the baselines beside it."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from foretune.analysis.inside_run.baselines import BASELINES
from foretune.analysis.inside_run.contract import Forecast, Predictor
from foretune.analysis.inside_run.landmark import read_landmarks


def foretune(history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
    """Returns the forecast of the model that ships with the code
    (`analysis.inside_run.landmark`)."""
    return read_landmarks()(history, context)


PREDICTORS: Final[Mapping[str, Predictor]] = {"foretune": foretune, **BASELINES}
"""Predictors by name, each `(history, context) -> Forecast` as `analysis.inside_run.contract`
says."""
