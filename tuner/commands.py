"""What the commands do once their arguments are read: plan, run, print."""

import sys
from dataclasses import replace
from pathlib import Path

import analysis
from models import MODELS
from search_spaces import SPACES
from tuner.data import NAMES as DATASETS
from tuner.dry_run import print_plan
from tuner.end_table import end_table, stops
from tuner.execution import Execution
from tuner.image_data import SOURCES
from tuner.interventions import INTERVENTIONS
from tuner.journal import read_sweep
from tuner.mlflow_tracker import sync, view_hint
from tuner.plan import Plan
from tuner.presets import PRESETS
from tuner.quantizers import ABOUT as QUANTIZERS_ABOUT
from tuner.quantizers import QUANTIZERS
from tuner.reproductions import REPRODUCTIONS
from tuner.rundir import read_json
from tuner.sweep import SweepResult, resume, sweep_plan


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
    execution = Execution(**read_sweep(directory)["execution"])
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
    facts, trials = read_sweep(directory), analysis.load(directory).trials
    losses = trials[trials["outcome"] == "finished"].set_index("run_id")["objective"]
    if facts.get("search") != "optuna" or losses.empty:
        return
    from tuner.optuna_plan import OpenPlan

    run_dir = directory / "runs" / str(losses.idxmin())
    draw = read_json(run_dir / "run.json")["draw"]
    label = OpenPlan.from_json(facts["draws"]).label(draw["params"])
    print(f"\nbest: {label}, loss {losses.min():.4g}: {run_dir}")


def _print_sensitivity(directory: Path) -> None:
    text = end_table(analysis.load(directory).trials)
    if text:
        print(f"\n{text}")


def collect_command(directory: Path) -> int:
    """Rebuilds the tables and says how large they are."""
    records = analysis.collect(directory)
    print(f"{len(records.trials)} runs -> {directory / 'trials.parquet'}")
    print(f"{len(records.telemetry)} rows -> {directory / 'telemetry.parquet'}")
    return 0


def sync_command(directory: Path, *, tracking_uri: str) -> int:
    """Sends what waits for MLflow; 0 when nothing waits any more, 3 otherwise."""
    message = sync(directory, tracking_uri=tracking_uri)
    print(message or f"MLflow has everything of {directory}")
    return 3 if message else 0


TEXTS = {
    "stdlib": "The running Python's own standard-library sources, as bytes (embedded).",
    "prose": "The language reference that Python's help() shows, as bytes (embedded, English).",
    "text": "A local file, or all files of a folder, as bytes: data.path.",
    "tokens": "A memory-mapped token file, .npy or .bin (uint16): data.path, data.vocab_size.",
    "c4": "English C4 as tokens, from the hub or a folder: data.tokenizer, data.tokens (extra hf).",
    "hf": "Any data set of Hugging Face as tokens: data.path, data.tokenizer, data.tokens.",
}


def list_command(what: str) -> int:
    """Prints the names of a family, one line each."""
    families: dict[str, dict[str, object]] = {
        "presets": dict(PRESETS),
        "spaces": dict(SPACES),
        "interventions": dict(INTERVENTIONS),
        "quantizers": dict(QUANTIZERS),
        "models": dict(MODELS),
        "datasets": {name: None for name in (*DATASETS, *SOURCES)},
        "figures": dict(REPRODUCTIONS),
    }
    about = {
        "datasets": {**TEXTS, **{name: source.about for name, source in SOURCES.items()}},
        "quantizers": QUANTIZERS_ABOUT,
        "figures": {name: figure.question for name, figure in REPRODUCTIONS.items()},
    }.get(what, {})
    for name, thing in families[what].items():
        doc = about.get(name) or (thing.__doc__ or "").strip().split("\n\n")[0]
        preset = getattr(thing, "PRESET", "") if what == "spaces" else ""
        print(f"{name:20} {' '.join(doc.split())}" + (f" (preset {preset})" if preset else ""))
    return 0
