"""Optuna's part of a search: a study in memory that draws configurations and learns how runs ended.

Draw k is a function of the seed, of k, and of what the study knows by then. So a study that is
built again from a sweep's runs goes on as the one before it would have.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from foretune.tuner.planning.optuna_space import OptunaSpace
from foretune.tuner.records.outcome_json import RunEnd

DIVERGED, UNSTABLE, IMPOSSIBLE = "diverged", "forecast to be unstable", "impossible"
"""Constraints that a configuration violates where their value is above 0."""
STARTUP = 10
"""Draws that are random before TPE has enough to go by: Optuna's own number."""


def quiet() -> None:
    """Keeps Optuna from telling of every study and trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """A study of one space."""

    def __init__(self, space: OptunaSpace, *, seed: int):
        quiet()
        self._space, self._seed = space, seed
        self.study = optuna.create_study()
        """Optuna's own; trials are in the order in which they were drawn."""

    def draw(self, *, at_random: bool = False) -> optuna.Trial:
        """Returns a new trial: `params` has its configuration, and it runs until `tell`."""
        number = len(self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        self.study.sampler = RandomSampler(seed=seed) if at_random else self._tpe(seed)
        trial = self.study.ask()
        self._space.suggest(trial)
        return trial

    def recall(self, params: Mapping[str, Any]) -> optuna.Trial:
        """Returns a trial that was drawn before, entered as it was."""
        self.study.sampler = RandomSampler(seed=0)  # Asked for nothing: all is given.
        self.study.enqueue_trial(dict(params))
        trial = self.study.ask()
        self._space.suggest(trial)
        return trial

    def tell(self, trial: optuna.Trial, end: RunEnd) -> None:
        """Tells how the run of a trial ended.

        A run that ended early is PRUNED, so that its loss isn't taken for a final one; one that
        diverged, or was stopped because it is forecast to, violates a constraint as well.
        """
        value, how, forecast = end.objective, end.outcome.outcome, end.outcome.forecast
        if how == "failed":
            self.study.tell(trial, state=TrialState.FAIL)
        elif how == "stopped":
            if forecast and not forecast["audited"]:
                trial.set_constraint(UNSTABLE, forecast["probability"])
            trial.report(value, end.outcome.step)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            if how == "diverged":
                trial.set_constraint(DIVERGED, 1.0)
            self.study.tell(trial, value)

    def reject(self, trial: optuna.Trial) -> None:
        """Tells that the configuration of a trial can't be run: infeasible, without a value."""
        trial.set_constraint(IMPOSSIBLE, 1.0)
        self.study.tell(trial, state=TrialState.PRUNED)

    def _tpe(self, seed: int) -> BaseSampler:
        several = len(self._space.parts) > 1
        with warnings.catch_warnings():
            # Fields of a part are drawn jointly only with `group`, which Optuna calls experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                multivariate=True,
                constant_liar=True,
                group=several,
                n_startup_trials=STARTUP,
                seed=seed,
            )
