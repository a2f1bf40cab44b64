"""Families of runs: trials that differ only in size, learning rate and seed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from foretune.analysis.records.schema import TRIAL_COLUMNS

LR: Final = "optimizer.lr"
LADDER: Final = "model.ladder"
WIDTH, DEPTH, HEAD_DIM = "model.width", "model.depth", "model.head_dim"
NOT_FACTORS: Final = (LR, "seed", WIDTH, "model.size")

FIX_OF_SIGNAL: Final = MappingProxyType({"max_attention_logit": "model.qk_norm"})
"""The boolean config field that is the known cure for a signal's growth (qk-layernorm)."""

CONDITIONS: Final = MappingProxyType(
    {
        "steps": "steps",
        "batch_size": "batch",
        "data.name": "data",
        "data.sequence_length": "context",
        "model.kind": "model",
        "model.head_dim": "head dim",
        "model.depth": "depth",
    }
)
"""Config fields that limit what a forecast is about, and their names in its horizon."""


PLAIN: Final = ("steps", "batch_size")
"""Config fields without a dot in their path that change what a run does."""


def settings(trials: pd.DataFrame) -> list[str]:
    """The columns of a trials table that say what a run does: its config, but not the seed."""
    return [name for name in trials.columns if "." in name or name in PLAIN]


@dataclass(frozen=True, slots=True)
class Family:
    """The trials that share every factor's value."""

    label: str
    values: dict[str, Any]
    """Factor -> value; empty where nothing but size, learning rate and seed varies."""
    trials: pd.DataFrame


def factors(trials: pd.DataFrame) -> list[str]:
    """Config columns that vary between trials and are neither learning rate, seed nor size.

    A numeric column with one value per size belongs to the ladder's dial (of each ladder, where
    there are several). One that repeats with the learning rate (a final rate at a tenth of it, say)
    belongs to that axis.
    """
    if trials.empty:
        return []
    config = [name for name in trials.columns if name not in TRIAL_COLUMNS]
    varying = [n for n in config if trials[n].nunique(dropna=False) > 1]
    repeated = LR in trials and trials[LR].nunique() * 2 <= len(trials)
    axes = ["size", "n_params", *([LR] if repeated else [])]
    # Each value of these is a ladder of its own, whose sizes have their own N.
    own = [WIDTH, *([HEAD_DIM] if _on_ladder(trials, "joint") else [])]
    return [
        name
        for name in varying
        if not is_no_factor(trials, name)
        and not any(_follows(trials, name, a) for a in (["size"] if name in own else axes))
    ]


def is_no_factor(trials: pd.DataFrame, name: str) -> bool:
    """Whether a column is learning rate, seed or size; width isn't where a dial is the depth."""
    return name in NOT_FACTORS and not (name == WIDTH and _on_ladder(trials, "depth"))


def _on_ladder(trials: pd.DataFrame, ladder: str) -> bool:
    """Whether some trials stand on this ladder."""
    return LADDER in trials and bool(trials[LADDER].eq(ladder).any())


def _follows(trials: pd.DataFrame, name: str, axis: str) -> bool:
    """Whether a numeric column is a function of an axis, and of what that leaves open."""
    column = trials[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return False
    by = [axis, *(n for n in _beside(trials, name) if n in trials)]
    return bool(trials.groupby(by, dropna=False)[name].nunique(dropna=False).le(1).all())


def _beside(trials: pd.DataFrame, name: str) -> list[str]:
    """What a size leaves open of width and depth: its ladder, and the head dim of a joint one."""
    if name not in (WIDTH, DEPTH):
        return []
    return [LADDER, HEAD_DIM] if _on_ladder(trials, "joint") else [LADDER]


def families(trials: pd.DataFrame) -> Iterator[Family]:
    """Each family of a trials table, in the order of its factors' values."""
    names = factors(trials)
    if not names:
        if len(trials):
            yield Family(label({}), {}, trials)
        return
    for key, group in trials.groupby(names, dropna=False, sort=True):
        values = {name: _plain(value) for name, value in zip(names, key, strict=True)}
        yield Family(label(values), values, group)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


QUANTIZER: Final = ("quantization.format", "quantization.scale", "quantization.norm")
"""The fields that a number format's name stands for."""


def quantizer_name(format: str, scale: str | None, norm: bool | None) -> str:
    """What weights are held in: `full precision`, `ternary mean`, `int8`, ...

    `+ norms` says that a norm precedes every layer of the quantizer's placement; full precision
    with it is the control.
    """
    base = "full precision" if format == "none" else format
    if format == "ternary" and scale:
        base = f"ternary {scale}"
    return f"{base} + norms" if norm else base


def label(values: Mapping[str, Any]) -> str:
    """A family's name for tables and legends: `model.qk_norm=false`, or `all runs`.

    Where number formats differ it begins with the format's name instead of its fields.
    """
    parts, rest = [], dict(values)
    if QUANTIZER[0] in rest:
        format_, scale, norm = (rest.pop(name, None) for name in QUANTIZER)
        parts.append(quantizer_name(str(format_), scale, norm))
    parts += [f"{n}={v if isinstance(v, str) else json.dumps(v)}" for n, v in rest.items()]
    return ", ".join(parts) or "all runs"


def held_constant(trials: pd.DataFrame) -> dict[str, Any]:
    """The conditions that all trials share, by their names in a horizon.

    The ladder is named where it isn't the usual one, width, and the width where depth is the dial.
    """
    known = {text: trials[name] for name, text in CONDITIONS.items() if name in trials}
    if _on_ladder(trials, "depth") or _on_ladder(trials, "joint"):
        known["ladder"] = trials[LADDER]
    if _on_ladder(trials, "depth"):
        known["width"] = trials[WIDTH]
    return {
        text: _plain(column.iloc[0])
        for text, column in known.items()
        if column.nunique(dropna=False) == 1
    }


def select(trials: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    """The trials whose config has these values; a column that is absent rules nothing out."""
    chosen = pd.Series(True, index=trials.index)
    for name, value in values.items():
        if name in trials:
            column = trials[name]
            chosen &= column.isna() if value is None else (column == value).fillna(False)
    return trials[chosen]


def twin_of(family: Family, all_families: list[Family], signal: str) -> Family | None:
    """The family with the signal's cure and every other factor equal; None where there is none."""
    fix = FIX_OF_SIGNAL.get(signal)
    if fix is None or bool(family.values.get(fix, True)):
        return None
    wanted = {**family.values, fix: True}
    return next((other for other in all_families if other.values == wanted), None)
