"""`foretune collect`: the tables of a sweep, from its runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

if TYPE_CHECKING:
    from foretune.analysis import Records


def collect(directory: Positional[str], /) -> int:
    """Rebuilds trials.parquet and telemetry.parquet from the runs of a sweep.

    Args:
        directory: the sweep's directory.
    """
    root = Path(directory)
    records = read_records(root, rebuild=True)
    print(f"{len(records.trials)} runs -> {root / 'trials.parquet'}")
    print(f"{len(records.telemetry)} rows -> {root / 'telemetry.parquet'}")
    return 0


def read_records(directory: Path, *, rebuild: bool = False) -> "Records":
    """Returns the records of a sweep; a line on stderr names each run that is left out.

    rebuild writes the tables anew.
    """
    from foretune import analysis

    records = analysis.collect(directory) if rebuild else analysis.load(directory)
    for sentence in records.left_out:
        print(f"foretune: {sentence}", file=sys.stderr)
    return records
