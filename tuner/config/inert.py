"""Settings that change nothing beside a run's other ones.

Each of their values would be another run id of the same training. So one that is asked for is
refused where no run uses it, and is the default again in those runs of a sweep that don't.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from foretune.argument_error import Argument, ArgumentError
from foretune.models.nets.parametrize import Parametrization
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.formats import formats_with
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.run import Run

PLACEMENT = ("head", "first_conv")
"""Where norms go, so that the control has these as well."""
Lack = tuple[str, str] | None
"""What a field needs to have an effect, and a setting that gives it; None for what has one."""


def check_effective(resolved: Iterable[tuple[Collection[str], Run]]) -> None:
    """ValueError where a setting that was asked for is inert in every run.

    resolved pairs the paths that were asked for, by setting or by intervention, with the run that
    they gave.
    """
    refused: dict[str, ArgumentError] = {}
    used: set[str] = set()
    for asked, run in resolved:
        for group in LACKS:
            part = getattr(run, group)
            for f in fields(part):
                path, value = f"{group}.{f.name}", getattr(part, f.name)
                lack = LACKS[group](part, f.name)
                if lack is None:
                    used.add(path)
                elif (group in asked or path in asked) and value != f.default:
                    refused[path] = ArgumentError(
                        f"{path}={value} needs {lack[0]}; add ",
                        Argument("overrides"),
                        f" {lack[1]} or leave it out.",
                    )
    for path, error in refused.items():
        if path not in used:
            raise error


def without_inert(run: Run) -> Run:
    """Returns the run with the default in every field that changes nothing."""
    return replace(run, **{group: _effective(getattr(run, group), LACKS[group]) for group in LACKS})


def _effective(part: Any, lacks: Callable[[Any, str], Lack]) -> Any:
    return replace(part, **{f.name: f.default for f in fields(part) if lacks(part, f.name)})


def _lacks_format(quantization: Quantization, name: str) -> Lack:
    format, cure = quantization.format, "quantizer=ternary-mean"
    if format == "none" and name not in ("format", "norm"):
        if quantization.norm and name in PLACEMENT:
            return None
        if name == "scale":
            cure = f"quantizer=ternary-{quantization.scale}"
        return "a number format, got format=none", cure
    if name == "group_size" and quantization.granularity != "group":
        cure = "quantization.granularity=group"
        return f"granularity=group, got granularity={quantization.granularity}", cure
    typed = formats_with("scale_dtype")
    if name == "scale_dtype" and format not in typed:
        return f"format={' or '.join(typed)}, got format={format}", cure
    return None


def _lacks_rule(optimizer: Optimizer, name: str) -> Lack:
    if name == "momentum" and optimizer.name != "muon":
        return f"name=muon, got name={optimizer.name}", "optimizer.name=muon"
    if name == "epsilon" and optimizer.name == "adamw-atan2":
        needed = "a rule that divides, which adamw-atan2 doesn't, got name=adamw-atan2"
        return needed, "optimizer.name=adamw"
    if name in ("decay", "decay_on") and not optimizer.weight_decay:
        return "weight decay, got weight_decay=0.0", "optimizer.weight_decay=1e-4"
    return None


def _lacks_fall(schedule: Schedule, name: str) -> Lack:
    if name == "decay_share" and schedule.name != "wsd":
        return f"name=wsd, got name={schedule.name}", "schedule.name=wsd"
    if name == "final_lr" and schedule.name == "constant":
        return "a schedule that falls, got name=constant", "schedule.name=cosine"
    return None


def _lacks_width(parametrization: Parametrization, name: str) -> Lack:
    if name == "base_width" and parametrization.name == "standard":
        cure = "parametrization.name=mup-simple"
        return "a rule for width, got name=standard", cure
    return None


LACKS: Mapping[str, Callable[[Any, str], Lack]] = {
    "optimizer": _lacks_rule,
    "schedule": _lacks_fall,
    "parametrization": _lacks_width,
    "quantization": _lacks_format,
}
"""What returns, by part of a run, what a field lacks to have an effect and how to get it."""
