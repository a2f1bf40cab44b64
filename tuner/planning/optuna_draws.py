"""The searcher of `--search optuna`: draws runs one after another, each written down as it starts.

The sweep's directory is the journal: the study is built again from it, never stored. Ray's own
OptunaSearch isn't used: it takes a run that was stopped early for a complete one, and leaves one
that is NaN running for ever.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna import Trial

from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import open_stream
from foretune.tuner.planning.forecast_skip import SkipRule, never_begun
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.planning.optuna_study import Study
from foretune.tuner.records.journal import describe_all
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import Draw, Rejected, RunRecord, run_id

Skipped = Callable[[RunRecord, RunEnd], None]
"""Called with a run that a forecast keeps from beginning, and its end."""
BY_TPE, AT_RANDOM = 20, 200
"""Draws in a row that may give no new run. TPE keeps to what is good, so that where few new ones
are left random draws find them."""


class Draws:
    """Draws the runs of a sweep, and tells Optuna how they ended."""

    def __init__(
        self,
        directory: Path,
        plan: OpenPlan,
        journal: list[RunRecord],
        *,
        skip: SkipRule | None = None,
    ):
        """journal is what `read_runs` gives, with and without outcome; skip keeps runs from
        beginning, which then don't count among `num_samples`.

        Raises ValueError where a run isn't what its draw says.
        """
        self._runs_dir, self._plan, self._skip = directory / "runs", plan, skip
        self._study = Study(plan.space, seed=plan.plan.seed)
        self._open: dict[str, list[Trial]] = {}
        self._ends: dict[str, RunEnd | None] = {}
        self._streams: set[Any] = set()
        self.exhausted = ""
        """Why no more are drawn, or empty."""
        for record in sorted(journal, key=number):
            self._recall(record)
        self._number = max(map(number, journal), default=-1) + 1

    @property
    def left(self) -> int:
        """How many runs are still to be drawn."""
        begun = sum(not never_begun(end) for end in self._ends.values())
        return max(0, self._plan.plan.num_samples - begun)

    def label(self, record: RunRecord) -> str:
        """Returns a short name for a run."""
        return self._plan.label(_draw(record).params)

    def examples(self) -> list[Run]:
        """Returns runs that may be drawn."""
        return self._plan.examples()

    def draw(self, skipped: Skipped | None = None) -> RunRecord | None:
        """Returns the next run, once it is written down; None for no more.

        What can't be run, what is there already and what is forecast to be unstable is reported
        to Optuna, and drawn again; skipped is called with the last.
        """
        rejected: list[Rejected] = []
        last, wanted = "", self._plan.plan.num_samples
        for attempt in range(BY_TPE + AT_RANDOM if self.left else 0):
            trial = self._study.draw(at_random=attempt >= BY_TPE)
            try:
                record = self._describe(self._plan.run(trial.params))
            except ValueError as error:
                self._study.reject(trial)
                last = str(error)
                rejected.append(Rejected(params=trial.params, run_id="", why=last))
                continue
            name, known = record.run_id, record.run_id in self._ends
            self._enter(trial, name)
            if known:
                last = "drawn before"
                rejected.append(Rejected(params=trial.params, run_id=name, why=last))
                continue
            draw = Draw(number=self._number, params=trial.params, rejected=tuple(rejected))
            record = replace(record, draw=draw)
            end = self._skip.end(record)[0] if self._skip else None
            self._write_down(record, end)
            if end is None:
                return record
            rejected, last = [], end.outcome.reason
            if skipped:
                skipped(record, end)
        if self.left:
            self.exhausted = (
                f"Optuna drew {wanted - self.left} of {wanted} trials: "
                f"{BY_TPE + AT_RANDOM} more draws gave no new one that can be run (the last: "
                f"{last})."
            )
        return None

    def _write_down(self, record: RunRecord, end: RunEnd | None) -> None:
        """Writes run.json, after the outcome.json of a run that never begins: what ends between the
        two must not leave it waiting."""
        folder = self._runs_dir / record.run_id
        if end is not None:
            end.write(folder)
        record.write(folder)
        self._number += 1
        if end is not None:
            self.trial_ended(record.run_id)

    def trial_started(self, run_id: str) -> None:
        """A trial started or went on: nothing that Optuna must know."""

    def trial_ended(self, run_id: str) -> None:
        """Tells Optuna how a run ended, by its outcome.json, as a resumed sweep would."""
        end = self._ends[run_id] = RunEnd.read(self._runs_dir / run_id)
        assert end is not None, "the caller has written it"
        for trial in self._open.pop(run_id, ()):
            self._study.tell(trial, end)

    def _describe(self, run: Run) -> RunRecord:
        if (run.data, run.batch_size) not in self._streams:
            open_stream(run.data, batch_size=run.batch_size)
            self._streams.add((run.data, run.batch_size))
        (record,) = describe_all([run])
        return record

    def _recall(self, record: RunRecord) -> None:
        """Enters a run that is written down, and what was drawn in vain before it."""
        draw, name = _draw(record), record.run_id
        found = run_id(self._plan.run(draw.params))
        if found != name:
            raise ValueError(
                f"{self._runs_dir / name / 'run.json'} must be what its draw gives, got another "
                f"run, {found}: the preset has changed; restore it or start a new sweep."
            )
        for earlier in draw.rejected:
            trial = self._study.recall(earlier.params)
            if earlier.run_id:
                self._enter(trial, earlier.run_id)
            else:
                self._study.reject(trial)
        self._enter(self._study.recall(draw.params), name)

    def _enter(self, trial: Trial, name: str) -> None:
        """Links a trial of Optuna's with its run, whose outcome may be there already."""
        if name not in self._ends:
            self._ends[name] = RunEnd.read(self._runs_dir / name)
        end = self._ends[name]
        if end is None:
            self._open.setdefault(name, []).append(trial)
        else:
            self._study.tell(trial, end)


def number(record: RunRecord) -> int:
    """Returns how many runs of a search were drawn before one."""
    return _draw(record).number


def _draw(record: RunRecord) -> Draw:
    assert record.draw is not None, "a search writes how it came to a run"
    return record.draw
