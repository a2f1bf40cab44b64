"""`path=value` texts of a command line as values."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foretune.argument_error import Argument, ArgumentError


def parse_assignments(texts: Iterable[str], *, argument: str = "overrides") -> dict[str, Any]:
    """Returns {path: value} of `path=value` texts; values are Python literals or plain words."""
    assignments: dict[str, Any] = {}
    for text in texts:
        path, value = _split(argument, "optimizer.lr=1e-3", text, assignments)
        assignments[path] = parse_value(value)
    return assignments


def parse_grids(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Returns {path: values} of `path=v1,v2,...` texts."""
    grids: dict[str, list[Any]] = {}
    for text in texts:
        path, values = _split("grids", "optimizer.lr=1e-3,1e-2", text, grids)
        grids[path] = [parse_value(v) for v in values.split(",") if v.strip()]
        check_distinct("grids", grids[path], of=f" {path}")
    return grids


def _split(argument: str, example: str, text: str, seen: Mapping[str, Any]) -> tuple[str, str]:
    """Returns path and value; ValueError for another form and for a path that was there already."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ArgumentError(Argument(argument), f" must look like {example}, got {text!r}.")
    if path in seen:
        first = ",".join(map(str, seen[path])) if isinstance(seen[path], list) else seen[path]
        raise ArgumentError(
            Argument(argument),
            f" must name a field once, got {path}={first} and {text}; leave one out.",
        )
    return path, value


def check_distinct(argument: str, values: Sequence[Any], *, of: str = "") -> None:
    """ValueError where an argument's values (of a field) hold one twice: it would make one run, not
    two."""
    for i, value in enumerate(values):
        # 1 and 1.0 are one value of a field, 1 and True are two.
        if any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in values[:i]):
            raise ArgumentError(
                Argument(argument),
                f"{of} must give each value once, got {value!r} twice; leave one out.",
            )


def parse_value(text: str) -> Any:
    """Returns the Python literal in a text (1e-3, True, 'a'), or the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
