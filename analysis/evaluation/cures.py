"""Which fix a run wants: whether a twin with it would end better, from the run's first tenth.

A twin is the same configuration and seed with one thing changed: qk-layernorm switched on, or a
third of the learning rate. The label is a lower final loss by more than `WORTH`; each fix has a
logistic of the unfixed run's features, squares included: a little instability is worth fixing, and
past some learning rate qk-layernorm saves nothing either.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.evaluation.backtest import context_of, fold_of, read_landmarks_of
from foretune.analysis.inside_run.features import FEATURES, LOGIT, Trace, read_features
from foretune.analysis.inside_run.landmark import filled
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.twins import FIXES
from foretune.analysis.records.families import LR
from foretune.analysis.stats.logistic import Logistic, fit_logistic

SHARE: Final = 0.10
"""Share of the steps that is read."""
PRECISION: Final = 0.95
"""Cross-fitted precision that a fix's threshold must reach on the fitted twins."""
SQUARED: Final = (
    "logit",
    "rate",
    "rate_size",
    "output",
    "entropy",
    "logit_slope",
    "update",
)
"""Features whose squares enter too; chosen with the ridge by cross-validation on fitted twins."""
RIDGE: Final = 0.003
SHIPPED: Final = Path(__file__).with_name("cures.json")


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether a fix is worth it."""

    fix: str
    probability: float
    """That it lowers the final loss by more than `WORTH`; NaN where it isn't known."""
    worth: bool
    """Whether the probability passes the fix's threshold."""
    reason: str


@dataclass(frozen=True, slots=True)
class Cure:
    """The fitted rule of one fix."""

    fix: str
    fit: Logistic
    fill: tuple[float, ...]
    threshold: float
    twins: int
    worth_it: int
    """Fitted twins that ended better by more than `WORTH`."""

    def judge(self, trace: Trace, context: Mapping[str, Any]) -> Advice:
        """Returns the advice for a run from what was read so far."""
        if not trace.values(LOGIT):
            return Advice(self.fix, math.nan, False, "the model has no attention logits")
        found = read_features(trace, context)
        row = _columns(pd.DataFrame([found]), self.fill)
        probability = float(self.fit.probability(row)[0])
        return Advice(
            self.fix,
            probability,
            probability > self.threshold,
            f"largest attention logit {10 ** found['logit']:.3g}",
        )


def advise(history: pd.DataFrame, context: Mapping[str, Any]) -> list[Advice]:
    """Returns the advice of every shipped fix for a run without it, likeliest first."""
    steps = float(context["total_steps"])
    trace = Trace.of(history[history["step"] < SHARE * steps])
    fixes = [cure for cure in read_cures() if context.get(FIXES[cure.fix]) is not True]
    return sorted((c.judge(trace, context) for c in fixes), key=lambda a: -a.probability)


def advise_sweep(trials: pd.DataFrame, telemetry: pd.DataFrame, *, lr: float | None = None) -> str:
    """Returns a clause on the fix that a sweep's runs want, by the shipped rules; empty for none.

    It is read off the first tenth of one run of the largest size: at the learning rate nearest to
    lr, or the highest. Sweeps whose runs were also trained with a fix know better: their twins.
    """
    begun = trials[trials["run_id"].isin(telemetry["run_id"].unique()) & trials[LR].gt(0)]
    if begun.empty:
        return ""
    largest = begun[begun["n_params"] == begun["n_params"].max()]
    wanted = largest[LR].max() if lr is None else lr
    run = largest.loc[(np.log(largest[LR]) - math.log(wanted)).abs().idxmin()].to_dict()
    history = telemetry[telemetry["run_id"] == run["run_id"]].sort_values("step")
    for advice in advise(history, context_of(run)):
        if advice.worth:
            return (
                f"{advice.fix}, worth more than {WORTH:g} nats with probability "
                f"{advice.probability:.2f} by the first tenth of the run of size "
                f"{run['size']:g} at {run[LR]:.3g} ({advice.reason})"
            )
    return ""


def fit_cure(
    twins: pd.DataFrame, telemetry: pd.DataFrame, clusters: pd.Series, *, fix: str
) -> Cure:
    """Returns the rule fitted on twins; the threshold from folds that a cluster lies in one of."""
    readings = read_landmarks_of(twins, telemetry, shares=(SHARE,)).set_index("run_id")
    _, fill = filled(readings, FEATURES)
    design = _columns(readings, fill)
    worth = (twins.set_index("run_id")["benefit"] > WORTH).loc[readings.index].to_numpy(float)
    fold = fold_of(clusters.loc[readings.index]).to_numpy()
    held_out = np.full(len(worth), math.nan)
    for number in np.unique(fold):
        rule = fit_logistic(design[fold != number], worth[fold != number], l2=RIDGE)
        held_out[fold == number] = rule.probability(design[fold == number])
    return Cure(
        fix,
        fit_logistic(design, worth, l2=RIDGE),
        fill,
        _threshold(held_out, worth > 0),
        len(twins),
        int(worth.sum()),
    )


def _threshold(probability: np.ndarray, worth: np.ndarray) -> float:
    """The lowest probability above which at least `PRECISION` of the twins are worth fixing."""
    order = np.argsort(-probability)
    precision = np.cumsum(worth[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= PRECISION)
    if not len(good):
        return 1.0
    last = int(good[-1])
    following = probability[order[last + 1]] if last + 1 < len(order) else 0.0
    return float((probability[order[last]] + following) / 2)


def _columns(readings: pd.DataFrame, fill: tuple[float, ...]) -> np.ndarray:
    plain = readings[[*FEATURES]].to_numpy(float)
    plain = np.where(np.isfinite(plain), plain, fill)
    squares = [plain[:, FEATURES.index(name)] ** 2 for name in SQUARED]
    return np.column_stack([plain, *squares])


def write_cures(cures: list[Cure], path: Path = SHIPPED) -> None:
    """Writes the rules as JSON."""
    path.write_text(json.dumps([asdict(cure) for cure in cures], indent=1) + "\n")


def read_cures(path: Path = SHIPPED) -> list[Cure]:
    """Returns the stored rules."""
    cures = []
    for fields in json.loads(path.read_text()):
        fit = Logistic.from_json(json.dumps(fields["fit"]))
        cures.append(Cure(**{**fields, "fit": fit, "fill": tuple(fields["fill"])}))
    return cures
