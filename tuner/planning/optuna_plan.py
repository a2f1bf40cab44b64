"""A plan whose runs aren't listed but drawn: what it can say before, and as JSON for `resume`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from optuna.samplers import RandomSampler
from optuna.study import create_study

from foretune.models.nets.ladder import check_rungs
from foretune.redaction import shown
from foretune.tuner.config.inert import check_effective, without_inert
from foretune.tuner.config.kept_secrets import give_back_at
from foretune.tuner.config.run import Run
from foretune.tuner.planning.optuna_space import (
    PART,
    Choice,
    OptunaSpace,
    optuna_space,
    pack_value,
    unpack_value,
)
from foretune.tuner.planning.optuna_study import quiet
from foretune.tuner.planning.plan import Plan, check_streams
from foretune.tuner.planning.run_names import short
from foretune.tuner.records.own_models import check_asked

EXAMPLES, TRIES = 20, 200
"""Random draws of each part that are looked at beforehand, and how many may be impossible."""
LENGTHS = ("steps", "eval_every")
"""Fields that bound when a scheduler may stop a run."""


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """A plan and its space in Optuna's form."""

    plan: Plan
    space: OptunaSpace

    @classmethod
    def of(cls, plan: Plan) -> "OpenPlan":
        """Returns a plan with search=optuna; ValueError for a space that Optuna can't draw from."""
        return cls(plan, optuna_space(plan.space))

    def run(self, params: Mapping[str, Any]) -> Run:
        """Returns the run of an Optuna trial's parameters; ValueError where there can't be one."""
        _, run = self._complete(self.space.chosen(params))
        return without_inert(run)

    def label(self, params: Mapping[str, Any]) -> str:
        """Returns a short name for a draw: the fields that Optuna chose."""
        part = params.get(PART, 0)
        chosen = self.space.chosen(params)
        open_ones = [path for path, _, _ in self.space.choices(part)]
        words = [f"part={part}"] if PART in params else []
        return " ".join(
            [*words, *(f"{p.rpartition('.')[2]}={short(shown(p, chosen[p]))}" for p in open_ones)]
        )

    def describe(self) -> list[str]:
        """Returns a line for each field of the space."""
        lines = []
        for part, domains in enumerate(self.space.parts):
            if len(self.space.parts) > 1:
                lines.append(f"part {part}")
            width = max(map(len, domains))
            lines += [f"  {path:{width}}  {shown(path, str(f))}" for path, f in domains.items()]
        return lines

    def examples(self, *, check_data: bool = True) -> list[Run]:
        """Returns runs that may be drawn: random ones of every part, and the longest and shortest.

        Raises ValueError for a part of which none is possible, and for what was asked for in vain.
        Without check_data no data is opened.
        """
        resolved = [
            pair
            for part in range(len(self.space.parts))
            for chosen in self._possible(part)
            for pair in chosen
        ]
        check_effective(resolved)
        runs = list(dict.fromkeys(without_inert(run) for _, run in resolved))
        check_rungs(run.model for run in runs)
        if check_data:
            check_streams(runs)
        return runs

    def _possible(self, part: int) -> Iterator[list[tuple[set[str], Run]]]:
        """Yields up to EXAMPLES random draws of a part, each in all its lengths."""
        first: ValueError | None = None
        draws = self._random(part)
        for found in range(EXAMPLES):
            for chosen in draws:
                try:
                    yield [self._complete({**chosen, **ends}) for ends in self._lengths(part)]
                    break
                except ValueError as error:
                    first = first or error
            else:
                if not found and first is not None:
                    raise first
                return

    def _random(self, part: int) -> Iterator[dict[str, Any]]:
        quiet()
        study = create_study(sampler=RandomSampler(seed=self.plan.seed))
        for _ in range(TRIES):
            if len(self.space.parts) > 1:
                study.enqueue_trial({PART: part})
            trial = study.ask()
            self.space.suggest(trial)
            yield self.space.chosen(trial.params)

    def _lengths(self, part: int) -> list[dict[str, Any]]:
        fields = self.space.parts[part]
        open_ones = {p: fields[p].ends() for p in LENGTHS if isinstance(fields.get(p), Choice)}
        return [dict(zip(open_ones, ends, strict=True)) for ends in product(*open_ones.values())]

    def _complete(self, chosen: Mapping[str, Any]) -> tuple[set[str], Run]:
        return self.plan.complete(chosen, seed=self.plan.seed)

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values, for `resume` to draw from."""
        plan = self.plan
        return {
            "space": self.space.to_json(),
            "preset": pack_value("preset", plan.preset),
            "num_samples": plan.num_samples,
            "seed": plan.seed,
            "interventions": list(plan.interventions),
            "overrides": {path: pack_value(path, v) for path, v in plan.overrides.items()},
            "grids": list(plan.grids),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "OpenPlan":
        """Returns the plan of `to_json`; its own `space` is empty, since Optuna's has it all.

        Raises ValueError for what is none, and for code of users' own that nobody has asked for.
        """
        try:
            return cls._from_json(facts)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"sweep.json must hold what its runs are drawn from in draws, got another value "
                f"({type(error).__name__}: {error}); restore it."
            ) from None

    @classmethod
    def _from_json(cls, facts: Mapping[str, Any]) -> "OpenPlan":
        preset = unpack_value(facts["preset"])
        if isinstance(preset, str) and ".py" in preset:
            check_asked("The preset of sweep.json", Path(preset.partition(":")[0]))
        plan = Plan(
            {},
            preset=preset,
            search="optuna",
            num_samples=facts["num_samples"],
            seed=facts["seed"],
            interventions=tuple(facts["interventions"]),
            overrides={
                path: give_back_at(path, unpack_value(v)) for path, v in facts["overrides"].items()
            },
            grids=tuple(facts["grids"]),
        )
        return cls(plan, OptunaSpace.from_json(facts["space"]))


def open_plan(plan: Plan) -> "OpenPlan | None":
    """Returns the plan of a search that draws runs as others end; None where they are listed."""
    if plan.search != "optuna":
        return None
    from foretune.tuner.planning.optuna_plan import OpenPlan

    return OpenPlan.of(plan)
