"""What MLflow gets of a sweep and its trials: names, params, tags and metrics from the files.

Every name and value fits every MLflow store.
"""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretune.redaction import redacted, shown
from foretune.tuner.tracking.outbox import DamagedRun, folders, is_number, read_json, read_run
from foretune.tuner.tracking.short_names import usual_values

NAME_CHARACTERS, PARAM_CHARACTERS, TAG_CHARACTERS = 250, 6000, 5000
"""Limits of mlflow 3.17 (utils/validation.py); older servers cut tags at 5000."""

Metric = tuple[str, float, int, int]
"""Key, value, timestamp in ms, step."""


def sweep_tags(sweep_dir: Path) -> dict[str, str]:
    """Returns the tags of a sweep's run; unlike its params they may change, with seeds added."""
    facts = read_json(sweep_dir / "sweep.json")
    command, commit = redacted(str(facts.get("command", ""))), str(facts.get("commit", ""))
    space = _shown(facts.get("space", ""))
    tags = {
        "foretune.kind": "sweep",
        "foretune.command": command,
        "foretune.commit": commit,
        "foretune.space": space if isinstance(space, str) else json.dumps(space),
        "foretune.directory": str(sweep_dir),
        "foretune.seeds": str(facts.get("seeds", "")),
        "foretune.trials": str(facts.get("trials", "")),
        "mlflow.source.name": command,
        "mlflow.source.git.commit": commit,
    }
    return {key: text[:TAG_CHARACTERS] for key, text in tags.items() if text}


def _shown(space: Any) -> Any:
    """A space without secrets, also of a sweep that was written down with them."""
    if isinstance(space, list):
        return [_shown(part) for part in space]
    return shown("", space) if isinstance(space, Mapping) else redacted(str(space))


def _name(text: str) -> str:
    """Returns a name that every store takes: words, dots, dashes, spaces."""
    return re.sub(r"[^\w\-. ]", "_", text)[:NAME_CHARACTERS]


FIRST, LAST = "tokens_seen", "loss"
"""Of a row's columns, as it is sent: where the first has arrived, it was begun, where the last has,
it is complete (`Sender._ask` relies on it)."""


def row_metrics(row: Mapping[str, float], started_ms: int) -> list[Metric]:
    """Returns (key, value, timestamp, step) of a row; the same row gives the same timestamps."""
    step = int(row["step"])
    time_ms = started_ms + (int(1000 * row["seconds"]) if "seconds" in row else step)
    keys = sorted(row.keys() - {"step"}, key=lambda key: (key == LAST, key != FIRST, key))
    return [(_name(key), float(row[key]), time_ms, step) for key in keys]


def summary_metrics(outcome: Mapping[str, Any], end_ms: int) -> list[Metric]:
    """Returns the last numbers of a run; none without an outcome."""
    if not outcome:
        return []
    values = {key: outcome.get(key) for key in ("final_val_loss", "objective", "loss_at_init")}
    values["diverged"] = float(outcome["outcome"] == "diverged")
    step = int(outcome.get("step", 0))
    there = ((key, value) for key, value in values.items() if value is not None)
    return [(key, float(value), end_ms, step) for key, value in there if is_number(value)]


def outcome_tags(outcome: Mapping[str, Any]) -> dict[str, str]:
    """Returns the tags that say how a run ended; none without an outcome."""
    if not outcome:
        return {}
    texts = {key: redacted(str(outcome.get(key) or "")) for key in ("outcome", "reason", "tensor")}
    tags = {f"foretune.{key}": text[:TAG_CHARACTERS] for key, text in texts.items() if text}
    tags["foretune.diverged"] = str(outcome["outcome"] == "diverged").lower()
    return {**tags, **_forecast_tags(outcome.get("forecast") or {})}


def _forecast_tags(forecast: Mapping[str, Any]) -> dict[str, str]:
    if not forecast:
        return {}
    return {
        "foretune.forecast.probability": f"{forecast['probability']:.4g}",
        "foretune.forecast.step": str(forecast["step"]),
        "foretune.forecast.reason": str(forecast["reason"])[:TAG_CHARACTERS],
        "foretune.forecast.audited": str(forecast["audited"]).lower(),
    }


def end_ms(folder: Path, outcome: Mapping[str, Any]) -> int:
    """Returns when a run ended, the same at every call; now for one without an outcome."""
    if not outcome:
        return int(1000 * time.time())
    return int(1000 * (outcome.get("ended") or (folder / "outcome.json").stat().st_mtime))


def start_ms(folder: Path, outcome: Mapping[str, Any]) -> int:
    """Returns when a run started as its files have it: to be used where nothing else says it."""
    if "seconds" in outcome:
        return end_ms(folder, outcome) - int(1000 * outcome["seconds"])
    return int(1000 * (folder / "run.json").stat().st_mtime)


def run_params(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the config of a run.json by dotted path, with its size and counts."""
    counts = {key: facts[key] for key in ("size", "n_params", "n_params_total") if key in facts}
    return _params({**facts["config"], **counts})


def sweep_params(sweep_dir: Path) -> dict[str, str]:
    """Returns what sweep.json says beyond the tags, but no tracking URI: MLflow is there."""
    facts = read_json(sweep_dir / "sweep.json")
    hidden = ("command", "commit", "draws", "format", "space")
    shown = {k: v for k, v in facts.items() if k not in hidden}
    return {k: v for k, v in _params(shown).items() if not k.endswith("tracking_uri")}


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    flat = _flat(shown("", values))
    return {_name(key): redacted(text)[:PARAM_CHARACTERS] for key, text in flat.items()}


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Returns nested JSON values as text by dotted path; lists as JSON."""
    if isinstance(value, Mapping):
        parts = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {prefix: json.dumps(value) if isinstance(value, list) else str(value)}


def varying_paths(sweep_dir: Path) -> dict[str, str | None]:
    """Returns the dotted paths in which the runs of a sweep differ, each with the text
    that a name leaves out, if any."""
    seen: dict[str, list[str]] = {}
    for folder in folders(sweep_dir):
        with contextlib.suppress(DamagedRun):
            for path, text in _flat(shown("", read_run(folder)[0]["config"])).items():
                seen.setdefault(path, []).append(text)
    varying = {path: texts for path, texts in seen.items() if len(set(texts)) > 1}
    usual = usual_values(varying)
    return {path: usual.get(path) for path in varying}


def label(facts: Mapping[str, Any], varying: Mapping[str, str | None]) -> str:
    """Returns a run's name, like `d64 lr=0.03 qk_norm=True seed=0`."""
    every = _flat(shown("", facts["config"]))
    fields = {path: text for path, text in every.items() if text != varying.get(path)}
    others = [p for p in varying if p not in ("model.width", "optimizer.lr", "seed")]
    told = [p for p in ("optimizer.lr", *others, "seed") if p in fields]
    words = [f"{p.rpartition('.')[2]}={_short(fields[p])}" for p in told]
    return " ".join([f"d{facts.get('size', '?')}", *words])


def _short(text: str) -> str:
    with contextlib.suppress(ValueError):
        return f"{float(text):.3g}" if "." in text or "e" in text else text
    return text
