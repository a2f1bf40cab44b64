"""Reading the files of one run: `run.json`, `metrics.jsonl`, `outcome.json`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretune.analysis.records.checksum import check_unchanged
from foretune.analysis.records.rows import begin_with, parse_row
from foretune.analysis.records.schema import OUTCOMES, UNFINISHED

RUN_FILES = ("run.json", "metrics.jsonl", "outcome.json")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError where the file holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # Of JSON, or of its encoding.
        raise ValueError(
            f"{path} must hold one JSON object, got text that can't be parsed ({error}); "
            "restore the file or remove the directory that holds it"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} must hold one JSON object, got {type(value).__name__}; restore the file or "
            "remove the directory that holds it"
        )
    return value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, in order; a torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        row = parse_row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise ValueError(
                f"{path} must hold one JSON object with a step on each line, got something else "
                f"on line {number} of {len(lines)}; only the last line may be torn, so remove "
                "that line or the run's directory"
            )
    return rows


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted paths; lists become JSON text so that they compare."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def finite(value: Any) -> float:
    """A number as float; NaN for null, text, booleans and anything not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def read_run(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """One run as a row of the trials table and its telemetry rows; None without `run.json`.

    Raises ValueError where a file is damaged, has changed since it was written, or is another
    run's.
    """
    if not (directory / "run.json").exists():
        return None
    run = _record(directory / "run.json")
    outcome_path = directory / "outcome.json"
    outcome = _record(outcome_path) if outcome_path.exists() else {}
    rows = read_metrics(directory / "metrics.jsonl")
    run_id = str(run.get("run_id", directory.name))
    if outcome.get("run_id", run_id) != run_id:
        raise ValueError(
            f"{outcome_path} must be of run {run_id}, got that of {outcome['run_id']!r:.40}; "
            f"restore it"
        )
    _check_rows(directory / "metrics.jsonl", outcome.get("rows"))
    config = run.get("config")
    if not isinstance(config, dict):
        raise ValueError(
            f"{directory / 'run.json'} must hold a config object, got {config!r}; restore the "
            "file or remove the run's directory"
        )
    trial = {"run_id": run_id, **_sizes(run), **flatten(config), **_ending(outcome, rows)}
    return trial, [{"run_id": run_id, **row} for row in rows]


def _record(path: Path) -> dict[str, Any]:
    value = read_json(path)
    check_unchanged(path)
    return value


def _check_rows(path: Path, rows: Any) -> None:
    """ValueError where the rows that a run ended with aren't there; older records note none."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if isinstance(rows, Mapping) and not begin_with(lines, rows):
        raise ValueError(
            f"{path} must hold the {rows.get('count')} rows that its run ended with, got others; "
            f"restore it, or train the run again with foretune resume"
        )


def _sizes(run: Mapping[str, Any]) -> dict[str, float]:
    names = ("size", "n_params", "n_params_total", "weight_bytes", "tokens_per_step")
    names += ("flops_per_token",)
    sizes = {name: finite(run.get(name)) for name in names}
    # A model of one's own need not stand on a ladder: then its size is its number of parameters.
    return sizes | {"size": _first(sizes["size"], sizes["n_params"])}


def _ending(outcome: Mapping[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    name = str(outcome.get("outcome", UNFINISHED))
    if name not in OUTCOMES:
        raise ValueError(
            f"the outcome of run {outcome.get('run_id')} must be one of {', '.join(OUTCOMES)}, "
            f"got {name!r}; correct its outcome.json"
        )
    measured = [(row["step"], finite(row.get("val_loss"))) for row in rows if "val_loss" in row]
    initial = _first(finite(outcome.get("loss_at_init")), dict(measured).get(0, math.nan))
    newest = measured[-1][1] if measured else math.nan
    final = _first(finite(outcome.get("final_val_loss")), newest)
    accuracies = [finite(row["val_accuracy"]) for row in rows if "val_accuracy" in row]
    last = rows[-1] if rows else {}
    lost = name in ("diverged", "failed")
    return {
        "loss_at_init": initial,
        "final_val_loss": final,
        "objective": _first(finite(outcome.get("objective")), _objective(final, initial, lost)),
        "final_val_accuracy": accuracies[-1] if accuracies else math.nan,
        "reference_loss": finite(outcome.get("reference_loss")),
        "diverged": name == "diverged",
        "outcome": name,
        "reason": str(outcome.get("reason") or ""),
        "tensor": str(outcome.get("tensor") or ""),
        "last_step": _first(finite(outcome.get("step")), finite(last.get("step"))),
        "seconds": _first(finite(outcome.get("seconds")), finite(last.get("seconds"))),
        "data_sha256": str(outcome.get("data_sha256") or ""),
        **_forecast(outcome.get("forecast")),
    }


def _forecast(forecast: Any) -> dict[str, float]:
    """What a stopper forecast when it would have ended the run; NaN where it never would."""
    known = forecast if isinstance(forecast, dict) else {}
    audited = known.get("audited")
    return {
        "forecast_probability": finite(known.get("probability")),
        "forecast_step": finite(known.get("step")),
        "audited": float(audited) if isinstance(audited, bool) else math.nan,
    }


def _objective(final: float, initial: float, lost: bool) -> float:
    if lost or math.isnan(final):
        return initial
    return final if math.isnan(initial) else min(final, initial)


def _first(*values: float) -> float:
    """The first that is a number."""
    return next((value for value in values if not math.isnan(value)), math.nan)
