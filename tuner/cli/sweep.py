"""What the commands do once their arguments are read: plan, run, print."""

import sys
from dataclasses import replace
from pathlib import Path

from foretune import analysis
from foretune.tuner.cli.dry_run import print_plan
from foretune.tuner.cli.end_table import end_table, stops
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.sweeps.sweep import SweepResult, resume, sweep_plan
from foretune.tuner.tracking.sender import view_hint


def sweep_command(
    plan: Plan, *, out: Path, execution: Execution, dry_run: bool, command: str
) -> int:
    """Runs (or only costs) a plan and prints its table; returns the exit code."""
    if dry_run:
        return print_plan(plan, execution)
    print(f"foretune sweep {plan.name} -> {out}", flush=True)
    return _finish(sweep_plan(plan, out=out, execution=execution, command=command))


def resume_command(directory: Path, *, address: str) -> int:
    """Continues a sweep and prints its table; returns the exit code."""
    execution = Execution(**SweepRecord.read(directory).execution)
    if address:
        execution = replace(execution, address=address)
    return _finish(resume(directory, execution=execution))


def _finish(result: SweepResult) -> int:
    _print_outcomes(result)
    if not result.outcomes.get("unfinished"):
        _print_stops(result.directory)
        _print_sensitivity(result.directory)
        _print_best(result.directory)
        print(f"report: foretune report {result.directory}")
    if result.message:
        print(f"MLflow: {result.message}", file=sys.stderr)
    print(f"MLflow page: {view_hint(result.directory)}")
    if result.stalled:
        print(f"foretune: {result.stalled}", file=sys.stderr)
    if result.outcomes.get("unfinished"):
        print(f"Interrupted; continue with: foretune resume {result.directory}")
    return result.exit_code


def _print_outcomes(result: SweepResult) -> None:
    told = ", ".join(f"{n} {name}" for name, n in sorted(result.outcomes.items()))
    print(f"\n{sum(result.outcomes.values())} trials: {told}")


def _print_stops(directory: Path) -> None:
    text = stops(analysis.load(directory).trials)
    if text:
        print(text)


def _print_best(directory: Path) -> None:
    """The best trial of a search: the table above it speaks of learning rates alone."""
    sweep, trials = SweepRecord.read(directory), analysis.load(directory).trials
    losses = trials[trials["outcome"] == "finished"].set_index("run_id")["objective"]
    if sweep.draws is None or losses.empty:
        return
    from foretune.tuner.planning.optuna_plan import OpenPlan

    run_dir = directory / "runs" / str(losses.idxmin())
    draw = RunRecord.read(run_dir).draw
    assert draw is not None, "a search writes how it came to a run"
    label = OpenPlan.from_json(sweep.draws).label(draw.params)
    print(f"\nbest: {label}, loss {losses.min():.4g}: {run_dir}")


def _print_sensitivity(directory: Path) -> None:
    text = end_table(analysis.load(directory).trials)
    if text:
        print(f"\n{text}")
