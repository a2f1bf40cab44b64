"""`foretune predict`: the forecast for a size never run, as sentences or JSON."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.cli.collect import read_records

if TYPE_CHECKING:
    from foretune import analysis


def predict(
    directory: Positional[str],
    /,
    *,
    size: int,
    lr: float | None = None,
    threshold: str = "100",
    level: float = 0.9,
    json: bool = False,
    save: str = "",
    at: tuple[str, ...] = (),
) -> int:
    """The critical LR at a size never run, with interval and horizon; stable or not at an LR.

    Args:
        directory: the sweep's directory.
        size: rung of the sweep's ladder to predict; for transformers the width, or what its
            model.ladder says.
        lr: learning rate to judge at that size.
        threshold: largest attention logit that counts as danger (a number, in nats), or auto to
            calibrate it on the sweep's own runs.
        level: coverage of the interval, 0 to 1.
        json: print JSON instead of sentences.
        save: also write the JSON to this new file (a frozen prediction for `report --check`).
        at: other values of model.depth, model.head_dim, data.sequence_length, batch_size or steps,
            like steps=1000, where the sweep varied them.
    """
    from foretune import analysis
    from foretune.analysis.across_scale.arguments import check_question
    from foretune.tuner.config.assignments import parse_assignments
    from foretune.tuner.records.files import local_path

    local_path("save", save, file=True)
    check_question(size=size, lr=lr, threshold=threshold, level=level)
    settings = parse_assignments(at, argument="at")
    root = Path(directory)
    if save and Path(save).exists():
        raise ArgumentError(
            Argument("save"),
            f" must name a new file, since a forecast is frozen once made, got {save}.",
        )
    _params_at(root, size, settings)  # For its checks, before anything is forecast.
    records = read_records(root)
    ask = partial(
        analysis.predict,
        records,
        size=size,
        lr=lr,
        threshold=_threshold(threshold),
        level=level,
    )
    prediction = ask(n_params=_params_at(root, size))
    on_its_ladder = _params_at(root, size, values=prediction.family_values)
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
    if not prediction.outlook.get("fix") and (fix := _shipped_advice(root, prediction, lr)):
        print(f"likeliest fix: {fix}")
    if settings:
        print(f"at {' '.join(at)}: {_elsewhere(records, size, prediction, settings)}")
    print(f"horizon: {prediction.horizon}")
    if save:
        print(f"frozen in {save}")
    return 0


def _elsewhere(
    records: "analysis.Records",
    size: int,
    prediction: "analysis.Prediction",
    settings: Mapping[str, Any],
) -> str:
    """The critical learning rate at other values of the axes, from the runs that varied them."""
    from foretune.analysis.laws.axes import AXES, predict_at
    from foretune.analysis.records.families import select

    same = {k: v for k, v in prediction.family_values.items() if k not in AXES}
    found = predict_at(
        select(records.trials, same),
        records.telemetry,
        n_params=_params_at(records.directory, size, settings, prediction.family_values),
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


def _shipped_advice(directory: Path, prediction: "analysis.Prediction", lr: float | None) -> str:
    """What the shipped rules say of a sweep that has no twins with a fix."""
    from foretune import analysis
    from foretune.analysis.evaluation.cures import advise_sweep
    from foretune.analysis.records.families import select

    records = analysis.load(directory)
    return advise_sweep(select(records.trials, prediction.family_values), records.telemetry, lr=lr)


def outlook_lines(prediction: "analysis.Prediction") -> list[str]:
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
    return "auto" if text == "auto" else float(text)


def _params_at(
    directory: Path,
    size: int,
    settings: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> int:
    """N of the sweep's own model at another rung: its smallest variant, without added norms.

    values are a family's, of which those that say what ladder it stands on count.
    """
    from foretune.analysis.records.families import LADDER, WIDTH
    from foretune.models import at_size, count, has_ladder
    from foretune.tuner.records.run_json import from_config
    from foretune.tuner.records.sweep_json import SweepRecord

    run_files = sorted((directory / "runs").glob("*/run.json"))
    if not run_files:
        SweepRecord.read(directory)
        raise ValueError(f"DIR must hold runs, got none in {directory}.")
    # As the files have it: in a decoded config a field that its version didn't know has a value.
    ladder = {path: value for path, value in (values or {}).items() if path in (LADDER, WIDTH)}
    readable = [facts for facts in map(_facts, run_files) if facts]
    facts = min(
        (f for f in readable if _has(f["config"], ladder)),
        key=lambda f: (f["size"], f["n_params"]),
        default=None,
    )
    if facts is None:
        raise ValueError(f"DIR must hold runs that can be read, got none in {directory}.")
    model = from_config(facts["config"]).model
    if not has_ladder(model):
        raise ArgumentError(
            Argument("size"),
            f" needs a model with a ladder, got {type(model).__name__}; use analysis.predict with "
            f"n_params.",
        )
    own = {
        path.removeprefix("model."): value
        for path, value in (settings or {}).items()
        if path.startswith("model.")
    }
    if "depth" in own and getattr(model, "ladder", "width") != "width":
        raise ArgumentError(
            Argument("at"),
            " model.depth must be left out where ",
            Argument("size"),
            f" sets the depth, got {own['depth']} on the ladder {model.ladder}; give ",
            Argument("size"),
            " alone.",
        )
    return count(replace(at_size(model, size), **own)).n_params


def _facts(run_json: Path) -> dict[str, Any]:
    """What a run.json says of its run; nothing where it is damaged."""
    from foretune.analysis.records.run_files import read_json

    try:
        facts = read_json(run_json)
    except ValueError:
        return {}
    numbers = all(isinstance(facts.get(name), int | float) for name in ("size", "n_params"))
    return facts if numbers and isinstance(facts.get("config"), dict) else {}


def _has(config: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a run's config has these values; one that lacks a field doesn't rule it out."""
    from foretune.analysis.records.run_files import flatten

    flat = flatten(config)
    return all(flat.get(path, value) == value for path, value in values.items())
