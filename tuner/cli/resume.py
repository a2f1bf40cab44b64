"""`foretune resume`: an interrupted sweep goes on."""

from pathlib import Path

from tyro.conf import Positional


def resume(directory: Positional[str], /, *, address: str = "", tracking_uri: str = "") -> int:
    """Continues an interrupted sweep: trials with an outcome are kept, the rest go on.

    Args:
        directory: the sweep's directory.
        address: Ray cluster to join instead of the sweep's own, auto or HOST:PORT.
        tracking_uri: the sweep's MLflow store; empty is the one that it began with, if you named it
            then. A password is better given as MLFLOW_TRACKING_URI than typed here.
    """
    from dataclasses import replace

    from foretune.tuner.cli.end_table import finish
    from foretune.tuner.planning.execution import Execution
    from foretune.tuner.records.sweep_json import SweepRecord
    from foretune.tuner.sweeps.sweep import resume as go_on

    record = SweepRecord.read(Path(directory))
    execution = Execution(**{**record.execution, "tracking_uri": tracking_uri})
    if address:
        execution = replace(execution, address=address)
    return finish(go_on(Path(directory), execution=execution))
