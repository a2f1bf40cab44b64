"""`foretune predict`: the forecast for a size never run, as sentences or JSON."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from foretune import analysis
from foretune.analysis.laws.axes import AXES, predict_at
from foretune.analysis.records.families import LADDER, WIDTH, select
from foretune.analysis.records.run_files import flatten, read_json
from foretune.models import at_size, count, has_ladder
from foretune.tuner.config.assignments import parse_assignments
from foretune.tuner.records.run_json import from_config
from foretune.tuner.records.sweep_json import SweepRecord


def predict_command(
    directory: Path,
    *,
    size: int,
    lr: float | None,
    threshold: str,
    level: float,
    json: bool,
    save: str,
    at: Iterable[str] = (),
) -> int:
    """Prints the forecast for a size, and freezes it in a file where asked.

    at are `path=value` texts of other axes, for which the critical learning rate is told as well.
    """
    settings = parse_assignments(at, option="--at")
    if save and Path(save).exists():
        raise ValueError(
            f"--save must name a new file, since a forecast is frozen once made, got {save}."
        )
    ask = partial(
        analysis.predict,
        directory,
        size=size,
        lr=lr,
        threshold=_threshold(threshold),
        level=level,
    )
    _params_at(directory, size, settings)  # For its rules, before anything is told.
    prediction = ask(n_params=_params_at(directory, size))
    on_its_ladder = _params_at(directory, size, values=prediction.family_values)
    if on_its_ladder != prediction.n_params:
        prediction = ask(n_params=on_its_ladder, family=prediction.family)
    if save:
        Path(save).parent.mkdir(parents=True, exist_ok=True)
        Path(save).write_text(prediction.to_json() + "\n")
    if json:
        print(prediction.to_json())
        return 0
    print(f"size {size} ({prediction.n_params:,.0f} parameters without embedding and head)")
    print(prediction.reason)
    for line in outlook_lines(prediction):
        print(line)
    if settings:
        print(f"at {' '.join(at)}: {_elsewhere(directory, size, prediction, settings)}")
    print(f"horizon: {prediction.horizon}")
    if save:
        print(f"frozen in {save}")
    return 0


def _elsewhere(
    directory: Path, size: int, prediction: analysis.Prediction, settings: Mapping[str, Any]
) -> str:
    """The critical learning rate at other values of the axes, from the runs that varied them."""
    records = analysis.load(directory)
    same = {k: v for k, v in prediction.family_values.items() if k not in AXES}
    found = predict_at(
        select(records.trials, same),
        records.telemetry,
        n_params=_params_at(directory, size, settings, prediction.family_values),
        settings=settings,
        threshold=prediction.threshold,
        level=prediction.level,
    )
    if not math.isfinite(found.median):
        return found.status
    return (
        f"critical learning rate {found.median:.3g} ({found.low:.3g} to {found.high:.3g}); "
        f"{found.status}"
    )


def outlook_lines(prediction: analysis.Prediction) -> list[str]:
    """Returns what a prediction says beside the critical learning rate, a line each."""
    found = prediction.outlook
    names = {
        "best_lr": "best learning rate",
        "degraded_lr": "a tenth of the gain is lost from",
        "unstable_lr": "two fifths of it (unstable) from",
    }
    lines = [f"{text} {_estimate(found[name])}" for name, text in names.items() if name in found]
    clauses = {"first": "first to fail", "fix": "fixes", "decay": "decay"}
    return lines + [f"{text}: {found[n]}" for n, text in clauses.items() if found.get(n)]


def _estimate(found: Mapping[str, Any]) -> str:
    if not math.isfinite(found["median"]):
        return f"{found['status']}"
    return f"{found['median']:.3g} ({found['low']:.3g} to {found['high']:.3g})"


def _threshold(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--threshold must be a number or auto, got {text!r}.") from None


def _params_at(
    directory: Path,
    size: int,
    settings: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> int:
    """N of the sweep's own model at another rung: its smallest variant, without added norms.

    values are a family's, of which those that say what ladder it stands on count.
    """
    run_files = sorted((directory / "runs").glob("*/run.json"))
    if not run_files:
        SweepRecord.read(directory)
        raise ValueError(f"DIR must hold runs, got none in {directory}.")
    # As the files have it: in a decoded config a field that its version didn't know has a value.
    ladder = {path: value for path, value in (values or {}).items() if path in (LADDER, WIDTH)}
    facts = min(
        (f for f in map(read_json, run_files) if _has(f["config"], ladder)),
        key=lambda f: (f["size"], f["n_params"]),
    )
    model = from_config(facts["config"]).model
    if not has_ladder(model):
        raise ValueError(
            f"--size needs a model with a ladder, got {type(model).__name__}; "
            f"use analysis.predict with n_params."
        )
    own = {
        path.removeprefix("model."): value
        for path, value in (settings or {}).items()
        if path.startswith("model.")
    }
    if "depth" in own and getattr(model, "ladder", "width") != "width":
        raise ValueError(
            f"--at model.depth must be left out where --size sets the depth, got {own['depth']} on "
            f"the ladder {model.ladder}; give --size alone."
        )
    return count(replace(at_size(model, size), **own)).n_params


def _has(config: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a run's config has these values; one that lacks a field doesn't rule it out."""
    flat = flatten(config)
    return all(flat.get(path, value) == value for path, value in values.items())
