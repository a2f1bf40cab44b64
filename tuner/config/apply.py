"""Applies interventions from left to right, and refuses those that undo one another."""

from collections.abc import Iterable, Mapping

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.override import UnknownField, dotted, near
from foretune.tuner.config.run import Run


def intervene(run: Run, names: Iterable[str]) -> Run:
    """Returns the run changed from left to right.

    Two that set different fields give the same run in either order. Raises ValueError for an
    unknown name, one given twice, one that doesn't fit the model or a setting of the run, and one
    that changes a field which an earlier one has set.
    """
    start, setters = run, dict[str, str]()
    done: list[str] = []
    for name in names:
        if name not in INTERVENTIONS:
            raise ValueError(
                f"intervention must be one of {', '.join(INTERVENTIONS)}, got {name!r}."
                f"{near(name, INTERVENTIONS)}"
            )
        if name in done:
            raise ValueError(f"intervention must be given once, got {name} twice; leave one out.")
        before, run = dotted(run), _apply(run, name)
        # Also those that an earlier one has set to the same value.
        alone = changed_fields(dotted(start), dotted(_apply(start, name)))
        for field in dict.fromkeys([*alone, *changed_fields(before, dotted(run))]):
            if field in setters:
                raise ValueError(
                    f"interventions must set different fields, got {setters[field]} and {name}, "
                    f"which both set {field}; leave one out."
                )
            setters[field] = name
        done.append(name)
    return run


def changed_fields(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Returns the dotted fields whose values differ; 1 and 1.0 do, as in a run's id."""
    return [field for field, value in after.items() if repr(before.get(field)) != repr(value)]


def _apply(run: Run, name: str) -> Run:
    try:
        return INTERVENTIONS[name](run)
    except UnknownField as error:
        raise ValueError(
            f"intervention {name} needs a field {error.path}, which {error.owner} doesn't have."
        ) from None
    except ValueError as error:
        raise ValueError(f"intervention {name} doesn't fit this run: {error}") from None


def check_undone(
    run: Run, names: Iterable[str], changes: Mapping[str, object], origin: Mapping[str, str]
) -> None:
    """ValueError where a change that came after the interventions has undone one of them.

    run is what came out; origin says where a change's path is from if not from overrides:
    `space`, or another argument.
    """
    names = list(names)
    if not names:
        return
    now, again = dotted(run), dotted(intervene(run, names))
    for field, value in again.items():
        paths = [p for p in changes if field == p or field.startswith(f"{p}.")]
        if not paths or repr(now[field]) == repr(value):
            continue
        (*_, name) = (
            n for n in names if repr(dotted(intervene(run, [n]))[field]) != repr(now[field])
        )
        place = origin.get(paths[0], "overrides")
        if place == "space":
            end = ("the space varies; add ", Argument("drop"), f" {paths[0]}.")
        elif place == "overrides":
            end = (Argument(place), f" sets to {now[field]!r}; leave one out.")
        else:
            end = (Argument(place), " varies; leave one out.")
        raise ArgumentError(f"intervention {name} sets {field}, which ", *end)
