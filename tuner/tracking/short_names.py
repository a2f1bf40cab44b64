"""What a run's short name may leave out. Standard library only, like `tuner.tracking.outbox`."""

from collections import Counter
from collections.abc import Mapping, Sequence

MOST_SHOWN = 8
"""Fields in which runs differ up to which a name tells them all."""
NEARLY_ALL = 0.75
"""Share of the runs."""


def usual_values(values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Returns, of each of many fields, the value that nearly all runs have; nothing of a few.

    values are those of every run, by field. Names without these still tell two runs apart.
    """
    if len(values) <= MOST_SHOWN:
        return {}
    common = {path: Counter(texts).most_common(1)[0] for path, texts in values.items()}
    return {p: text for p, (text, n) in common.items() if n > NEARLY_ALL * len(values[p])}
