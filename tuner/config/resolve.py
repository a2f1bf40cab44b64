"""One order of resolution: preset, ladder and size, quantizer, interventions from left to right,
overrides."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

from foretune.argument_error import Argument, ArgumentError
from foretune.models import at_size, has_ladder
from foretune.models.quantization.config import Quantization
from foretune.tuner.config.apply import changed_fields, check_undone, intervene
from foretune.tuner.config.inert import check_effective, without_inert
from foretune.tuner.config.override import UnknownField, dotted, near, override
from foretune.tuner.config.presets import PRESETS
from foretune.tuner.config.quantizers import QUANTIZERS
from foretune.tuner.config.run import Run
from foretune.tuner.config.user_files import load_name

SIZE = "model.size"
"""Key of the ladder's dial in a space or an override; for transformers it sets the width, or what
`model.ladder` says."""
LADDER = "model.ladder"
"""Key of what the dial moves: a field like others, but set before the dial is."""
QUANTIZER = "quantizer"
"""Key in a space or an override that sets all of `quantization` by a quantizer's name."""
INTERVENTION = "intervention"
"""Key in a space or an override that names interventions, joined by +, after those of the sweep;
`none` names none."""
SPACE = "space"
"""Where a change is from that the search space itself makes."""


def resolve(
    preset: str | Run,
    *,
    size: int | None = None,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """Returns the complete run. An override of `steps` moves the preset's warm-up (5 %) and
    validations with it; one of `model.size` is the ladder's dial, one of `quantizer` the name of a
    complete quantization.

    Raises ValueError for unknown names (with the nearest one), values that break a rule, and an
    override that undoes an intervention or has no effect.
    """
    asked, run = resolve_draw(
        preset, size=size, interventions=interventions, overrides=overrides or {}, origin={}
    )
    check_effective([(asked, run)])
    return without_inert(run)


def resolve_draw(
    preset: str | Run,
    *,
    size: int | None = None,
    interventions: Iterable[str] = (),
    overrides: Mapping[str, Any],
    origin: Mapping[str, str],
) -> tuple[set[str], Run]:
    """Returns the paths that were asked for and one run of a sweep as `resolve` does.

    Asked for are those of the overrides and those that the interventions change; inert settings are
    left in. origin says where an override is from, if not from overrides: `space`, or
    another argument.
    """
    names, changes = list(interventions), dict(overrides)
    names += named_together(changes.pop(INTERVENTION, "none"))
    run = _preset(preset, changes)
    if size is not None and SIZE in changes:
        raise ArgumentError(
            f"{SIZE} must be given once, got ",
            Argument("size"),
            f" {size} and {changes[SIZE]!r}; leave one out.",
        )
    # An intervention may count in steps, and a schedule fits them or not.
    early = ("steps", "schedule.") if "steps" in changes else ()
    run = _changed(
        run, {p: v for p, v in changes.items() if p == LADDER or p.startswith(early)}, origin
    )
    size = changes.pop(SIZE, size)
    if size is not None:
        run = _at_size(run, size, in_space=origin.get(SIZE) == SPACE)
    if QUANTIZER in changes:
        run = override(run, {"quantization": _quantization(changes.pop(QUANTIZER))})
    asked = set(overrides)
    if names:
        before, run = dotted(run), intervene(run, names)
        asked.update(changed_fields(before, dotted(run)))
    _check_dial(run, changes)
    run = _changed(run, changes, origin)
    check_undone(run, names, changes, origin)
    return asked, run


def _changed(run: Run, changes: Mapping[str, Any], origin: Mapping[str, str]) -> Run:
    try:
        return override(run, changes)
    except UnknownField as error:
        if origin.get(error.path) != SPACE:
            raise
        raise ArgumentError(
            f"{error.path} is no field of {error.owner}; leave it out with ",
            Argument("drop"),
            f" {error.path}.{error.hint}",
        ) from None


def named_together(text: Any) -> list[str]:
    """Returns the interventions that a text joins by +; `none` names none."""
    if not isinstance(text, str):
        raise ValueError(f"{INTERVENTION} must be names joined by +, or none, got {text!r}.")
    return [] if text == "none" else text.split("+")


def _at_size(run: Run, size: Any, *, in_space: bool) -> Run:
    if not has_ladder(run.model):
        cure = ("add ", Argument("drop")) if in_space else ("leave out",)
        raise ArgumentError(
            f"{SIZE} needs a model with a ladder, got {type(run.model).__name__}; ",
            *cure,
            f" {SIZE}.",
        )
    return override(run, {"model": at_size(run.model, _whole(size))})


def _quantization(name: Any) -> Quantization:
    if name not in QUANTIZERS:
        raise ValueError(
            f"{QUANTIZER} must be one of {', '.join(QUANTIZERS)}, got {name!r}."
            f"{near(str(name), QUANTIZERS)}"
        )
    return QUANTIZERS[name].quantization


def _check_dial(run: Run, changes: Mapping[str, Any]) -> None:
    """ValueError for the dial misspelt: it is no field, so `override` would name another one."""
    if not has_ladder(run.model):
        return  # No ladder, no dial.
    group, _, dial = SIZE.rpartition(".")
    own = tuple(f.name for f in fields(cast("Any", run.model)))
    for path in changes:
        head, _, word = path.rpartition(".")
        if head in ("", group) and _nearest(word, own, dial) == dial:
            raise ArgumentError(
                f"There is no field {path}. Did you mean {SIZE}, the ladder's dial? It is ",
                Argument("sizes"),
                " of a sweep and ",
                Argument("size"),
                " of a run.",
            )


@cache
def _nearest(word: str, own: tuple[str, ...], dial: str) -> str:
    """Which of a model's fields and the dial a word is like that is no field; it may be none.

    By the last name alone: with the group, model.vocab_size would be 0.77 like model.size. Every
    run of a grid asks the same.
    """
    if word in own:
        return ""
    return next(iter(get_close_matches(word, [dial, *own], n=1, cutoff=0.75)), "")


def _whole(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"{SIZE} must be a whole number, got {size!r}.")
    return size


def _preset(preset: str | Run, changes: dict[str, Any]) -> Run:
    if isinstance(preset, Run):
        return preset
    if preset in PRESETS:
        make: Run | Callable[..., Run] = PRESETS[preset]
    elif ".py" in preset:
        make = load_name(preset, default="RUN")
    else:
        raise ValueError(
            f"preset must be one of {', '.join(PRESETS)} or FILE.py:NAME, got {preset!r}."
            f"{near(preset, PRESETS)}"
        )
    if isinstance(make, Run):
        return make
    if isinstance(make, type):
        raise ValueError(f"preset must be a Run or a function of steps, got the class {preset}.")
    if not callable(make):
        raise ValueError(f"preset must be a Run or a function of steps, got {preset} = {make!r}.")
    steps: Any = changes.get("steps")
    if type(steps) in (int, float) and steps > 0 and float(steps).is_integer():
        changes.pop("steps")
        run = make(steps=int(steps))
    else:  # A bad value is left for Run's own rule, which names the field.
        run = make()
    if not isinstance(run, Run):
        raise ValueError(f"preset must give a Run, got {preset} that gives {run!r}.")
    return run
