"""`foretune collect`: the tables of a sweep, from its runs."""

from pathlib import Path

from tyro.conf import Positional


def collect(directory: Positional[str], /) -> int:
    """Rebuilds trials.parquet and telemetry.parquet from the runs of a sweep.

    Args:
        directory: the sweep's directory.
    """
    from foretune import analysis

    root = Path(directory)
    records = analysis.collect(root)
    print(f"{len(records.trials)} runs -> {root / 'trials.parquet'}")
    print(f"{len(records.telemetry)} rows -> {root / 'telemetry.parquet'}")
    return 0
