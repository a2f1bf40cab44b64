"""Why MLflow didn't take something, in a phrase."""

from foretune.redaction import redacted
from foretune.tuner.tracking.outbox import DamagedRun


def refuses(error: Exception) -> bool:
    """Whether the answer will be the same the next time: a bad request, not a bad moment."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return isinstance(error, DamagedRun)
    status = error.get_http_status_code()
    return 400 <= status < 500 and status not in (401, 403, 408, 429)


def why(error: Exception, uri: str) -> str:
    """Returns an error's reason as a phrase; MLflow's own fill a screen and may show a password."""
    text = redacted(str(error).replace(uri.rstrip("/"), "the server"))
    for phrase in ("Connection refused", "Name or service not known", "timed out"):
        if phrase in text:
            return phrase.lower()
    return f"{type(error).__name__}: {text.partition(chr(10))[0][:300]}"
