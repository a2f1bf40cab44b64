"""Runs that are never begun: the law across sizes of an ended sweep forecasts them unstable.

A law speaks of runs like those that it was fitted on, so a run must share every setting with a
family of that sweep but learning rate, seed and size. Where none does, or the law cannot tell, the
run is run.
"""

import time
from collections.abc import Mapping
from typing import Any

from foretune import analysis
from foretune.analysis.across_scale.prediction import predictor
from foretune.analysis.records.families import LR, Family, families, is_no_factor
from foretune.analysis.records.run_files import flatten
from foretune.argument_error import spelled
from foretune.tuner.planning.execution import Execution
from foretune.tuner.records.outcome_json import RunEnd, Times
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.training.outcome import Outcome

MEASURING = ("eval_every", "telemetry_every", "probes")
"""Fields that change what is measured of a run, not the run."""


class SkipRule:
    """The law of an ended sweep as a rule about single runs, before they begin."""

    def __init__(self, execution: Execution):
        """Raises ValueError where `skip_from` holds no sweep."""
        records = analysis.load(execution.skip_from)
        self._threshold = execution.skip_above
        self._known = list(families(records.trials))
        self._predict = predictor(records)

    def end(self, run: RunRecord) -> tuple[RunEnd | None, str]:
        """Returns the end of a run that isn't to begin, None for one that is.

        Beside it: why the law can't tell, or nothing where it can.
        """
        probability, why = self._probability(run)
        if probability is None:
            return None, why
        unstable = probability > self._threshold
        return (_end(run, probability, self._threshold, why) if unstable else None), ""

    def _probability(self, run: RunRecord) -> tuple[float | None, str]:
        """The probability that a run is unstable, and the law's reason; None where it can't."""
        config = flatten(run.config)
        differences = [_difference(config, family) for family in self._known]
        if all(differences):
            least = min(differences, key=len, default=["its settings"])
            return None, f"no family of runs there has the same {', '.join(least)}"
        family = self._known[differences.index([])]
        at = self._predict(float(run.n_params), lr=float(config[LR]), family=family.label)
        known = at.probability is not None and 0 <= at.probability <= 1
        return (at.probability if known else None), at.reason


def never_begun(end: RunEnd | None) -> bool:
    """Whether it is the end of a run that a law has kept from beginning."""
    if end is None or end.outcome.outcome != "stopped" or end.outcome.step > 0:
        return False
    return bool(end.outcome.forecast)


def skips(runs: list[RunRecord], execution: Execution) -> tuple[dict[str, RunEnd], list[str]]:
    """Returns the ends of the runs not to begin, by id, and sentences about them.

    ValueError where `skip_from` holds no sweep.
    """
    if execution.skip_above >= 1:
        return {}, []
    rule = SkipRule(execution)
    found = {run.run_id: rule.end(run) for run in runs}
    ends = {name: end for name, (end, _) in found.items() if end}
    return ends, _sentences(runs, ends, [why for _, why in found.values() if why], execution)


def _difference(config: Mapping[str, Any], family: Family) -> list[str]:
    """The fields in which a run differs from what all runs of a family share."""
    trials = family.trials
    shared = [
        name
        for name in config
        if name in trials
        and name not in MEASURING
        and not is_no_factor(trials, name)
        and trials[name].nunique(dropna=False) == 1
    ]
    return [name for name in shared if not _same(config[name], trials[name].iloc[0])]


def _same(mine: Any, theirs: Any) -> bool:
    return bool(mine == theirs) or (mine is None and theirs != theirs)


def _end(run: RunRecord, probability: float, threshold: float, why: str) -> RunEnd:
    reason = (
        f"skipped before it started: forecast unstable with probability {_likely(probability)} "
        f"(more than {threshold:g}) at {run.n_params:,} parameters and learning rate "
        f"{run.run.optimizer.lr:g}: {why}"
    )
    outcome = Outcome(
        outcome="stopped",
        step=0,
        reason=reason,
        data_sha256=run.data_sha256,
        forecast={
            "probability": probability,
            "threshold": threshold,
            "step": 0,
            "by_step": None,
            "reason": why,
            "audited": False,
        },
    )
    return RunEnd.of(run.run_id, outcome, Times(ended=time.time()))


def _likely(probability: float) -> str:
    """A probability to three digits that never claims certainty."""
    return "above 0.999" if probability > 0.999 else f"{probability:.3f}"


def _sentences(
    runs: list[RunRecord], ends: Mapping[str, RunEnd], unclear: list[str], execution: Execution
) -> list[str]:
    option = f"{spelled('skip_above')} {execution.skip_above:g}"
    sentences = [
        f"{option} does not start {len(ends)} of {len(runs)} runs, which the law of "
        f"{execution.skip_from} forecasts to be unstable{':' if ends else '.'}"
    ]
    skipped = [run for run in runs if run.run_id in ends]
    for size in sorted({run.size or run.n_params for run in skipped}):
        these = [run for run in skipped if (run.size or run.n_params) == size]
        rates = sorted({run.run.optimizer.lr for run in these})
        forecasts = [ends[run.run_id].outcome.forecast or {} for run in these]
        least = min(forecast["probability"] for forecast in forecasts)
        sentences.append(
            f"  size {size}: {len(these)} at learning rates "
            f"{', '.join(f'{rate:g}' for rate in rates)}, the least probability {_likely(least)}"
        )
    for why in dict.fromkeys(unclear):
        sentences.append(
            f"{option} cannot tell for {unclear.count(why)} of {len(runs)} runs, which are run: "
            f"{why}."
        )
    return sentences
