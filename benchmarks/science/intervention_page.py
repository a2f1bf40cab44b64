"""The table of docs/interventions.md, from the rows of `tuner.config.interventions`.

    python -m benchmarks.science.intervention_page [--write]

Prints Markdown. With --write it replaces what is between the marks in docs/interventions.md.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.page import DOCS, Section
from foretune.tuner.config.intervention import Intervention, Own
from foretune.tuner.config.interventions import INTERVENTIONS

SECTION = Section(DOCS / "interventions.md", "interventions")
ACTS = {
    "start": "weights at the start",
    "forward": "forward pass",
    "gradient": "gradient",
    "update": "first update",
    "later": "a later update",
}


def table() -> str:
    """Returns the Markdown table of all interventions."""
    lines = [
        "| name | sets | what it does | first acts in | no change at | source |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in INTERVENTIONS.items():
        cells = (f"`{name}`", sets(row), row.about, ACTS[row.acts], zero(row), row.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sets(row: Intervention) -> str:
    """Returns the fields that an intervention sets, with their values."""
    return (row.sets.__doc__ or "").strip() if callable(row.sets) else _fields(row.sets)


def zero(row: Intervention) -> str:
    """Returns where an intervention changes nothing; `none` where it has no strength."""
    return "none" if row.zero is None else _fields(row.zero)


def _fields(values: Mapping[str, Any]) -> str:
    return ", ".join(_field(path, value) for path, value in values.items())


def _field(path: str, value: Any) -> str:
    if isinstance(value, Own):
        return f"the run's `{path}`" if value.path == path else f"`{path}` = `{value.path}`"
    number = isinstance(value, float)
    return f"`{path}={value:g}`" if number else f"`{path}={value}`"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(table(), end="")
        return 0
    SECTION.write(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
