"""`foretune resume`: an interrupted sweep goes on."""

from pathlib import Path

from tyro.conf import Positional


def resume(
    directory: Positional[str],
    /,
    *,
    address: str = "",
    tracking_uri: str = "",
    preset: str = "",
    retry_failed: bool = False,
) -> int:
    """Continues an interrupted sweep: trials with an outcome are kept, the rest go on.

    Args:
        directory: the sweep's directory.
        address: Ray cluster to join instead of the sweep's own, auto or HOST:PORT.
        tracking_uri: the sweep's MLflow store; empty is the one that it began with, if you named it
            then. A password is better given as MLFLOW_TRACKING_URI than typed here.
        preset: FILE.py:NAME of the sweep's own preset, where its file isn't in the folder that you
            start from: no other code that records name is run.
        retry_failed: let failed trials go on, too, from their checkpoints.
    """
    from dataclasses import replace

    from foretune.tuner.cli.end_table import finish
    from foretune.tuner.planning.execution import recorded_execution
    from foretune.tuner.records.sweep_json import SweepRecord
    from foretune.tuner.sweeps.sweep import resume as go_on

    record = SweepRecord.read(Path(directory))
    execution = replace(recorded_execution(record.execution), tracking_uri=tracking_uri)
    if address:
        execution = replace(execution, address=address)
    result = go_on(Path(directory), execution=execution, preset=preset, retry_failed=retry_failed)
    return finish(result)
