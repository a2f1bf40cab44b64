"""The fitted baseline that sees no training at all: a logistic regression on the configuration.

Whoever forecasts from telemetry must beat it, or has only learned that high learning rates are
dangerous.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, cannot_tell, rank
from foretune.analysis.records.families import LR, NOT_FACTORS
from foretune.analysis.stats.logistic import Logistic, fit_logistic
from foretune.analysis.stats.series import number

ALWAYS: Final = ("lr", "n_params")
"""Entries of the context that are features by their logarithm."""
WHOLE_RUN: Final = ("total_steps", "batch_size")
"""Fields without a dot in their path; `total_steps` stands for `steps` too."""
WIDE: Final = 10.0
"""Ratio of the largest to the smallest value from which a positive number goes by its logarithm."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the design: how it is read from a context."""

    field: str
    """Entry of the context."""
    kind: str
    """`number` (booleans are 0 and 1), `log10` or `category`."""
    value: str = ""
    """The category that scores 1; others, unseen ones included, score 0."""
    missing: float = 0.0
    """What counts where the context has no such number: the mean of the fit."""

    def read(self, context: Mapping[str, Any]) -> float:
        """Returns the feature of a context; always finite."""
        if self.kind == "category":
            return float(str(context.get(self.field)) == self.value)
        found = number(context, self.field)
        if self.kind == "log10":
            found = math.log10(found) if found > 0 else math.nan
        return self.missing if math.isnan(found) else found


@dataclass(frozen=True, slots=True)
class Configuration:
    """P(unstable) from learning rate, size and switches, by a logistic regression with a ridge."""

    features: tuple[Feature, ...]
    logistic: Logistic

    @classmethod
    def fit(cls, contexts: pd.DataFrame, labels: np.ndarray, l2: float = 1e-2) -> "Configuration":
        """Returns the fit of labels (n,) on contexts, one row per run with the entries of one.

        Features: log10 of `lr` and `n_params`, and every other field of the configuration that
        varies, but for seed and width. A column that repeats an earlier one is left out.
        """
        rows = [_entries(row) for row in contexts.to_dict("records")]
        features: list[Feature] = []
        columns: list[np.ndarray] = []
        for feature in _candidates(rows):
            column = np.array([feature.read(row) for row in rows])
            others = (c for f, c in zip(features, columns, strict=True) if f.field != feature.field)
            if np.ptp(column) > 0 and not any(_repeats(column, other) for other in others):
                features.append(feature)
                columns.append(column)
        design = np.stack(columns, axis=1) if columns else np.empty((len(rows), 0))
        return cls(tuple(features), fit_logistic(design, labels, l2=l2))

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        entries = _entries(context)
        if not number(entries, "lr") > 0:
            return cannot_tell("no learning rate in the context")
        row = np.array([[feature.read(entries) for feature in self.features]])
        probability = float(self.logistic.probability(row)[0])
        return rank(probability, f"{probability:.0%} from the configuration alone")


def _entries(context: Mapping[Any, Any]) -> dict[str, Any]:
    """The context with `lr` from its dotted path where only that is there."""
    return {**context, "lr": number(context, "lr", LR)}


def _candidates(rows: list[dict[str, Any]]) -> list[Feature]:
    fields = sorted({name for row in rows for name in row if _is_switch(name)})
    features = [f for name in ALWAYS for f in _number_features(rows, name, log=True)]
    for name in fields:
        seen = [row[name] for row in rows if _is_there(row.get(name))]
        if all(isinstance(value, bool | int | float | np.bool_ | np.number) for value in seen):
            features += _number_features(rows, name, log=False)
        elif len(names := sorted({str(value) for value in seen})) > 1:
            features += [Feature(name, "category", value) for value in names]
    return features


def _is_switch(name: str) -> bool:
    return name in WHOLE_RUN or ("." in name and name not in NOT_FACTORS)


def _is_there(value: Any) -> bool:
    return value is not None and value is not pd.NA and value == value


def _number_features(rows: list[dict[str, Any]], name: str, *, log: bool) -> list[Feature]:
    """The feature of a numeric field that varies; none for one that doesn't."""
    values = np.array([number(row, name) for row in rows])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if not len(values) or np.ptp(values) == 0 or (log and not len(positive)):
        return []
    if log or (len(positive) == len(values) and values.max() >= WIDE * values.min()):
        return [Feature(name, "log10", missing=float(np.log10(positive).mean()))]
    return [Feature(name, "number", missing=float(values.mean()))]


def _repeats(column: np.ndarray, earlier: np.ndarray) -> bool:
    """Whether a column is a straight line of another one: all that a regression sees of it."""
    a, b = column - column.mean(), earlier - earlier.mean()
    return bool(abs(a @ b) >= (1 - 1e-9) * math.sqrt((a @ a) * (b @ b)))
