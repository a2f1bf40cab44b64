"""Settings of `quantization` that change nothing beside its other fields.

Each of their values would be another run id of the same training. So one that is asked for is
refused where no run uses it, and is the default again in those runs of a sweep that don't.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from models.quantize import Quantization
from tuner.config import Run

GROUP = "quantization"
PLACEMENT = ("head", "first_conv")
"""Where norms go, so that the control has these as well."""
TYPED_SCALES = ("ternary", "binary")
"""Formats whose scale has a type."""


def check_effective(resolved: Iterable[tuple[Mapping[str, Any], Run]]) -> None:
    """ValueError where a setting that was asked for is inert in every run.

    resolved pairs the changes that were asked for with the run that they gave.
    """
    sentences: dict[str, str] = {}
    used: set[str] = set()
    for changes, run in resolved:
        for f in fields(Quantization):
            needed = _needed(run.quantization, f.name)
            value = getattr(run.quantization, f.name)
            asked = GROUP in changes or f"{GROUP}.{f.name}" in changes
            if not needed:
                used.add(f.name)
            elif asked and value != f.default:
                sentences[f.name] = f"{GROUP}.{f.name}={value} needs {needed}"
    for name, sentence in sentences.items():
        if name not in used:
            raise ValueError(sentence)


def without_inert(run: Run) -> Run:
    """Returns the run with the default in every field of its quantization that changes nothing."""
    old = run.quantization
    inert = {f.name: f.default for f in fields(old) if _needed(old, f.name)}
    return replace(run, quantization=replace(old, **inert))


def _needed(quantization: Quantization, name: str) -> str:
    """Returns what a field lacks to have an effect and how to get it, or nothing."""
    format, cure = quantization.format, "quantizer=ternary-mean"
    if format == "none" and name not in ("format", "norm"):
        if quantization.norm and name in PLACEMENT:
            return ""
        if name == "scale":
            cure = f"quantizer=ternary-{quantization.scale}"
        needed = "a number format, got format=none"
    elif name == "group_size" and quantization.granularity != "group":
        cure = f"{GROUP}.granularity=group"
        needed = f"granularity=group, got granularity={quantization.granularity}"
    elif name == "scale_dtype" and format not in TYPED_SCALES:
        needed = f"format={' or '.join(TYPED_SCALES)}, got format={format}"
    else:
        return ""
    return f"{needed}; add --set {cure} or leave it out."
