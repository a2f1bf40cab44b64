"""Every predictor of divergence inside a run by its name: ours, and the baselines beside it."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from analysis.baselines import BASELINES
from analysis.forecast import Forecast, Predictor
from analysis.landmark import read_landmarks


def foretune(history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
    """Returns the forecast of the model that ships with the code (`analysis.landmark`)."""
    return read_landmarks()(history, context)


PREDICTORS: Final[Mapping[str, Predictor]] = {"foretune": foretune, **BASELINES}
"""Predictors by name, each `(history, context) -> Forecast` as `analysis.forecast` says."""
