"""`foretune reproduce`: runs the sweeps of a claim and writes tables, figures and verdicts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from foretune import analysis
from foretune.analysis.claims.answer import Answer
from foretune.analysis.records.bank import freeze
from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.override import near
from foretune.tuner.config.run import Run
from foretune.tuner.planning.estimates import cost_lines
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.spaces import named_space, narrow
from foretune.tuner.records.journal import describe_all, enlarge
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.figure import SCALES, Figure, FigureSweep, FigureSweeps
from foretune.tuner.sweeps.sweep import resume, sweep_plan
from foretune.whole_files import atomic_write

NARROWED = {"model.size", "optimizer.lr"}
"""Axes that a setting may narrow to one value."""


def reproduce(
    names: Sequence[str],
    *,
    out: Path,
    scale: str = "tiny",
    seeds: int = 3,
    overrides: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
    dry_run: bool = False,
    command: str = "",
) -> int:
    """Runs and judges figures one after another; returns the exit code.

    Sweeps go to out/<part>; one that is there already goes on where it stopped, so figures that
    share a sweep run it once, and more seeds are added to it. Raises ValueError for an unknown name
    or scale, and for a part in out that was planned otherwise.
    """
    if not names:
        raise ValueError("FIGURE must name what to reproduce, got none; see foretune list figures.")
    chosen = {name: _named(name) for name in names}
    parts = {name: _parts(each, name, scale) for name, each in chosen.items()}
    for each in parts.values():
        for label, part in each.items():
            _check_overrides(part, label, overrides or {})
    plans = {
        label: plan_part(part, label, seeds=seeds, overrides=overrides or {})
        for each in parts.values()
        for label, part in each.items()
    }
    for name, figure in chosen.items():
        print(f"{name}: {figure.question}")
    if dry_run:
        return _print_cost(plans)
    for label, plan in plans.items():
        _check_same(plan, out / label)
    code = 0
    for label, plan in plans.items():
        print(f"{label} -> {out / label}", flush=True)
        if (out / label / "sweep.json").exists():
            _add_seeds(plan, out / label)
            result = resume(out / label, execution=execution)
        else:
            result = sweep_plan(plan, out=out / label, execution=execution, command=command)
        if result.outcomes.get("unfinished"):
            print(f"Interrupted; continue with the same command: {command}")
            return result.exit_code
        code = max(code, result.exit_code)
    for name, figure in chosen.items():
        changed = {
            label: replace(part, overrides={**part.overrides, **(overrides or {})})
            for label, part in parts[name].items()
        }
        _conclude(figure, name, changed, out, command)
    return code


def _named(name: str) -> Figure:
    if name not in FIGURES:
        raise ValueError(
            f"figure must be one of {', '.join(FIGURES)}, got {name!r}.{near(name, FIGURES)}"
        )
    return FIGURES[name]


def _parts(figure: Figure, name: str, scale: str) -> FigureSweeps:
    if scale not in SCALES:
        raise ArgumentError(
            Argument("scale"), f" must be one of {', '.join(SCALES)}, got {scale!r}."
        )
    if scale not in figure.parts:
        raise ArgumentError(
            Argument("scale"),
            f" must be one of {', '.join(figure.parts)} for {name}, got {scale}: {figure.missing}",
        )
    return figure.parts[scale]


def _check_overrides(part: FigureSweep, label: str, overrides: Mapping[str, Any]) -> None:
    """ValueError where a setting would make the runs that a sweep compares the same, or others."""
    named = {path for fields in part.variants.values() for path in fields}
    if not isinstance(part.space, str):
        spaces = [part.space] if isinstance(part.space, Mapping) else part.space
        named |= {path for each in spaces for path in each} if part.variants else set()
    if "schedule.warmup_steps" in named:
        named.add("steps")
    for path in overrides:
        if path == "seed" or path in named - NARROWED:
            why = (f"the sweep {label} depends on it",)
            if path == "seed":
                why = (Argument("seeds"), " chooses it")
            raise ArgumentError(
                Argument("overrides"),
                f" must leave {path} to the reproduction, got {overrides[path]!r}: ",
                *why,
                "; leave it out.",
            )


def plan_part(part: FigureSweep, label: str, *, seeds: int, overrides: Mapping[str, Any]) -> Plan:
    """Returns what one sweep of a figure runs."""
    changes = {**part.overrides, **overrides}
    own = named_space(part.space) if isinstance(part.space, str) else part.space
    return Plan(
        narrow(own, sizes=part.sizes, fixed=changes),
        name=part.space if isinstance(part.space, str) else label,
        preset=part.preset,
        seeds=min(seeds, part.most_seeds or seeds),
        overrides=changes,
    )


def _check_same(plan: Plan, directory: Path) -> None:
    """ValueError where a folder holds another sweep than the one that is asked for, but for more or
    fewer seeds."""
    if not (directory / "sweep.json").exists():
        return
    there, asked = SweepRecord.read(directory).plan, json.loads(json.dumps(plan.describe()))
    other = [name for name, value in asked.items() if name != "seeds" and there.get(name) != value]
    if other:
        raise ArgumentError(
            f"{directory} must hold the sweep that is asked for, got one with another "
            f"{other[0]}; choose another ",
            Argument("out"),
            ".",
        )


def _add_seeds(plan: Plan, directory: Path) -> None:
    """Writes the runs of further seeds into a sweep that was begun with fewer."""
    there = SweepRecord.read(directory).plan["seeds"]
    if plan.seeds > there:
        added = enlarge(directory, describe_all(plan.runs()), {"seeds": plan.seeds})
        print(f"{plan.seeds} seeds instead of {there}: {added} more trials")
    elif plan.seeds < there:
        print(f"{there} seeds are there, and all of them count")


def _print_cost(plans: Mapping[str, Plan]) -> int:
    runs: list[Run] = []
    for label, plan in plans.items():
        part = plan.runs(check_data=False)
        print(f"{label}: {len(part)} trials")
        runs += part
    print("\n".join(cost_lines(runs)))
    return 0


def _conclude(figure: Figure, name: str, parts: FigureSweeps, out: Path, command: str) -> None:
    if figure.freeze:
        print(freeze({label: out / label for label in parts}, out / name, command=command))
        return
    assert figure.judge is not None
    records = {label: analysis.load(out / label) for label in parts}
    for stem, answer in figure.judge(records, parts).items():
        _write(answer, stem or name, out)


def _write(answer: Answer, stem: str, out: Path) -> None:
    answer.table.to_csv(out / f"{stem}.csv", index=False)
    pd.DataFrame([claim.row() for claim in answer.claims]).to_csv(
        out / f"{stem}_claims.csv", index=False
    )
    with atomic_write(out / f"{stem}.png", shared=True) as partial:
        answer.figure.savefig(partial, dpi=130, format="png")
    print(f"\n{stem}")
    print(_shown(answer.table).to_string(index=False))
    for claim in answer.claims:
        print(f"{claim.verdict.at_this_scale:>24}  {claim.name}: {claim.sentence}")
    print(f"table, claims, figure: {out / stem}.csv, {out / stem}_claims.csv, {out / stem}.png")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table with four digits, for the terminal."""
    shown = table.copy()
    for name in shown.select_dtypes("float"):
        shown[name] = shown[name].map(lambda value: f"{value:.4g}")
    return shown
