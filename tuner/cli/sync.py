"""`foretune sync`: what MLflow has not received yet."""

from pathlib import Path

from tyro.conf import Positional


def sync(directory: Positional[str], /, *, tracking_uri: str = "") -> int:
    """Sends to MLflow what it has not received yet (after its server was away).

    Args:
        directory: the sweep's directory.
        tracking_uri: MLflow store; empty is the one the sweep used, if you named it then. A
            password is better given as MLFLOW_TRACKING_URI than typed here.
    """
    from foretune.tuner.tracking.sender import sync as send

    message = send(Path(directory), tracking_uri=tracking_uri)
    print(message or f"MLflow has everything of {directory}")
    return 3 if message else 0
