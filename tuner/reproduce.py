"""`foretune reproduce`: runs the sweeps of a claim and writes table, figure and verdicts."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

import analysis
from analysis.bank import freeze
from analysis.quantizer_figures import quantizer_figure
from tuner.config import Run, near
from tuner.execution import Execution
from tuner.plan import Plan
from tuner.reproductions import REPRODUCTIONS, SCALES, Part, Reproduction
from tuner.rundir import cost, describe
from tuner.spaces import named_space, narrow
from tuner.sweep import resume, sweep_plan

WORDS = {True: "holds", False: "does not hold", None: "can't tell at this scale"}


def reproduce(
    name: str,
    *,
    out: Path,
    scale: str = "tiny",
    seeds: int = 3,
    overrides: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
    dry_run: bool = False,
    command: str = "",
) -> int:
    """Runs and judges a reproduction; returns the exit code.

    Sweeps go to out/<part>; one that is there already goes on where it stopped. Raises ValueError
    for an unknown name or scale.
    """
    reproduction = _named(name)
    parts = _parts(reproduction, name, scale)
    plans = {
        label: plan_part(part, label, seeds=seeds, overrides=overrides or {})
        for label, part in parts.items()
    }
    print(reproduction.question)
    if dry_run:
        return _print_cost(plans)
    code = 0
    for label, plan in plans.items():
        directory = out / label
        print(f"{name}, {label} -> {directory}", flush=True)
        if (directory / "sweep.json").exists():
            result = resume(directory, execution=execution)
        else:
            result = sweep_plan(plan, out=directory, execution=execution, command=command)
        if result.outcomes.get("unfinished"):
            print(f"Interrupted; continue with the same command: {command}")
            return result.exit_code
        code = max(code, result.exit_code)
    if reproduction.freeze:
        print(freeze({label: out / label for label in parts}, out / name, command=command))
        return code
    for label, part in parts.items():
        _judge(reproduction, label, part, out)
    return code


def _named(name: str) -> Reproduction:
    if name not in REPRODUCTIONS:
        raise ValueError(
            f"figure must be one of {', '.join(REPRODUCTIONS)}, got {name!r}."
            f"{near(name, REPRODUCTIONS)}"
        )
    return REPRODUCTIONS[name]


def _parts(reproduction: Reproduction, name: str, scale: str) -> Mapping[str, Part]:
    if scale not in SCALES:
        raise ValueError(f"--scale must be one of {', '.join(SCALES)}, got {scale!r}.")
    if scale not in reproduction.parts:
        raise ValueError(
            f"--scale must be one of {', '.join(reproduction.parts)} for {name}, got {scale}: the "
            f"source's abstract gives neither its architectures nor its settings."
        )
    return reproduction.parts[scale]


def plan_part(part: Part, label: str, *, seeds: int, overrides: Mapping[str, Any]) -> Plan:
    """Returns what one sweep of a reproduction runs."""
    changes = {**part.overrides, **overrides}
    own = named_space(part.space) if isinstance(part.space, str) else part.space
    return Plan(
        narrow(own, sizes=part.sizes, fixed=changes),
        name=part.space if isinstance(part.space, str) else label,
        preset=part.preset,
        seeds=min(seeds, part.most_seeds or seeds),
        overrides=changes,
    )


def _print_cost(plans: Mapping[str, Plan]) -> int:
    for label, plan in plans.items():
        runs: list[Run] = plan.runs()
        flops = sum(cost(describe(run)) for run in runs)
        print(f"{label}: {len(runs)} trials, {flops:.2e} FLOP")
    return 0


def _judge(reproduction: Reproduction, label: str, part: Part, out: Path) -> None:
    assert reproduction.table is not None
    assert reproduction.judge is not None
    trials = analysis.load(out / label).trials
    table = reproduction.table(trials, part.metric)
    claims = reproduction.judge(trials, part.metric)
    table.to_csv(out / f"{label}.csv", index=False)
    pd.DataFrame([asdict(claim) for claim in claims]).to_csv(
        out / f"{label}_claims.csv", index=False
    )
    figure = quantizer_figure(trials, x=reproduction.x, metric=part.metric)
    partial = out / f".{label}.{os.getpid()}.png"
    figure.savefig(partial, dpi=130)
    partial.replace(out / f"{label}.png")
    print(f"\n{label}: {part.preset}, {part.metric}")
    print(_shown(table).to_string(index=False))
    for claim in claims:
        print(f"{WORDS[claim.holds]:>24}  {claim.name}: {claim.sentence}")
    print(f"table, claims, figure: {out / label}.csv, {out / label}_claims.csv, {out / label}.png")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table with four digits, for the terminal."""
    shown = table.copy()
    for name in shown.select_dtypes("float"):
        shown[name] = shown[name].map(lambda value: f"{value:.4g}")
    return shown
