"""What a sweep ends with: how many trials came to what, LR sensitivity by number format, other
factors and size, and how to go on."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from foretune import analysis
from foretune.tuner.config.quantizers import QUANTIZERS, nearest_name

if TYPE_CHECKING:  # Ray is loaded by then; a report goes without.
    from foretune.tuner.sweeps.execute import SweepResult

GROUP: Final = "quantization."
NUMBERS: Final = ["sensitivity", "low", "high", "best_lr", "best_loss", "high_side"]
UNSHOWN: Final = ["family", "n_seeds", "n_lr", "status"]
HEAD: Final = "LR sensitivity in nats (0: the LR doesn't matter), low-high its 90 % interval"


def finish(result: "SweepResult") -> int:
    """Prints what a sweep came to, and how to go on; returns the exit code."""
    from foretune.tuner.tracking.sender import view_hint

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
    if result.outcomes.get("unfinished") and not result.stalled:
        print(f"Interrupted; continue with: foretune resume {result.directory}")
    return result.exit_code


def _print_outcomes(result: "SweepResult") -> None:
    counts = ", ".join(f"{n} {name}" for name, n in sorted(result.outcomes.items()))
    print(f"\n{sum(result.outcomes.values())} trials: {counts}")


def _print_stops(directory: Path) -> None:
    text = stops(analysis.load(directory).trials)
    if text:
        print(text)


def _print_best(directory: Path) -> None:
    """The best trial of a search: the table above it speaks of learning rates alone."""
    from foretune.tuner.records.run_json import RunRecord
    from foretune.tuner.records.sweep_json import SweepRecord

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


def end_table(trials: pd.DataFrame) -> str:
    """Returns the LR-sensitivity table as text, with what its gaps mean; nothing without trials."""
    table = _with_names(analysis.sensitivity_table(trials), trials)
    known = table[table[NUMBERS].notna().any(axis=1)]
    lines = []
    if len(known):
        shown = known.drop(columns=UNSHOWN).rename(columns={"high_side": "from the best LR up"})
        text = shown.to_string(index=False, float_format=lambda x: f"{x:.3g}", na_rep="-")
        lines += [HEAD, text]
    if known[NUMBERS].isna().any(axis=None):
        lines.append("-: this takes two learning rates or more.")
    if len(known) < len(table):
        lines.append(f"Left out: {_left_out(table.drop(index=known.index))}.")
    return "\n".join(lines)


def stops(trials: pd.DataFrame) -> str:
    """Returns what the forecasts did, as lines; nothing where they did nothing."""
    fired = trials[trials["forecast_probability"].notna()]
    kept = fired[fired["audited"] == 1]
    ended = fired[(fired["audited"] == 0) & (fired["outcome"] == "stopped")]
    begun, skipped = ended[ended["last_step"] > 0], ended[ended["last_step"] == 0]
    saved, total = (ended["steps"] - ended["last_step"]).sum(), trials["steps"].sum()
    lines = []
    if len(fired):
        unbegun = f", {len(skipped)} not started" if len(skipped) else ""
        lines.append(
            f"forecast: {len(begun)} stopped{unbegun}; {saved:,.0f} of {total:,.0f} steps "
            f"({saved / total:.0%}) saved"
        )
    if len(kept):
        losses = f"{kept['final_val_loss'].min():.3f} to {kept['final_val_loss'].max():.3f}"
        lines.append(
            f"audit: {len(kept)} more would have been stopped and ran on, to losses of {losses} "
            f"(the best of the sweep: {trials['final_val_loss'].min():.3f})"
        )
    return "\n".join(lines)


def _left_out(rows: pd.DataFrame) -> str:
    where = " ".join(f"{size:g}" for size in sorted(rows["size"].unique()))
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return f"{count} without a trial that has a loss, of size {where}"


def _with_names(table: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """One column with the quantizer's name instead of the fields that it stands for."""
    varying = [name for name in table if name.startswith(GROUP)]
    if not varying:
        return table
    constant = [name for name in trials if name.startswith(GROUP) and name not in varying]
    rows = [
        _fields({**trials.iloc[0][constant], **row}) for row in table[varying].to_dict("records")
    ]
    names = [nearest_name(row) for row in rows]
    named = table.drop(columns=[name for name in varying if _is_in_name(name, names, rows)])
    named.insert(0, "quantizer", names)
    return named


def _fields(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(GROUP): value for name, value in columns.items()}


def _is_in_name(column: str, names: list[str], rows: list[dict[str, Any]]) -> bool:
    """Whether each row has in this column what the quantizer of its name has."""
    field = column.removeprefix(GROUP)
    own = [QUANTIZERS[name].fields.get(field) for name in names]
    return own == [row[field] for row in rows]
