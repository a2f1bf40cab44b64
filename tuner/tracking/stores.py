"""Which MLflow store a sweep is sent to: its own, or one that its user has named.

Nothing in a directory chooses where its data go: a store that `mlflow.json` or `sweep.json` names
must be named again by whoever sends, once for each sweep and user.
"""

import os
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from foretune.redaction import HIDDEN, redacted
from foretune.tuner.tracking.destinations import known_destination
from foretune.tuner.tracking.outbox import DamagedState, State, read_json

SERVERS = ("databricks", "http", "https")
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")
"""With `file` the schemes of mlflow 3.17, tracking/_tracking_service/utils.py."""
VARIABLE = "MLFLOW_TRACKING_URI"


def check_tracking_uri(uri: str) -> None:
    """Raises ValueError for what MLflow has no store for; empty means mlflow.db in the sweep."""
    if uri in ("", "databricks"):
        return
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:  # Brackets that don't close.
        parts, host = urlsplit(""), None
    scheme = parts.scheme.partition("+")[0]
    if uri and scheme in ("", "file") and not uri.startswith(("http:", "https:")):
        _check_folder(uri)
        return
    plugins = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    known = sorted({*SERVERS, *DATABASES, "file", *plugins})
    if scheme not in known or (scheme in ("http", "https") and not host):
        raise ValueError(
            f"tracking URI must begin with one of {', '.join(known)} and name a place, got "
            f"{redacted(uri)!r}; write it like http://HOST:5000 or sqlite:////FOLDER/mlflow.db."
        )


def _check_folder(uri: str) -> None:
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise ValueError(
            f"tracking URI must name a server or a database, got the folder {redacted(uri)!r}, "
            f"which MLflow refuses since 3.17; write sqlite:////FOLDER/mlflow.db or set "
            f"MLFLOW_ALLOW_FILE_STORE=true."
        )


def own_uri(directory: Path) -> str:
    """Returns the store that a sweep has for itself."""
    return f"sqlite:///{directory}/mlflow.db"


def known_state(directory: Path) -> "State | None":
    """Returns the state of a directory; none before its first sender, nor where it is damaged."""
    try:
        return State.load(directory)
    except DamagedState:
        return None


def agreed_uri(directory: Path, asked: str) -> tuple[str, bool]:
    """Returns the store that a sweep is sent to, and whether its user has named it just now.

    That is asked or MLFLOW_TRACKING_URI where the sweep begins, and later the store that it began
    with. Raises ValueError where it can't be, where the directory alone names it, and for a copy of
    a sweep that is on a server.
    """
    check_tracking_uri(asked)
    asked, own = _absolute(asked), own_uri(directory)
    state, recorded = _state(directory, asked), _recorded(directory)
    named = redacted(state.tracking_uri if state else recorded)
    variable = _absolute(os.environ.get(VARIABLE, ""))
    if not asked and named and redacted(variable) == named:
        asked = variable
    if state is not None and redacted(asked) not in ("", named or own):
        raise ValueError(
            f"tracking URI must stay the one that {directory / 'mlflow.json'} names, "
            f"{named or own!r}, got {redacted(asked)!r}; leave it out, or remove that file to send "
            f"it all again."
        )
    if asked == own or not (asked or named):
        return own, False
    if state is not None:
        _refuse_copy(directory, state)
    if not asked:
        _check_known(named, state)
    return asked or named, bool(asked)


def _absolute(uri: str) -> str:
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


def _state(directory: Path, asked: str) -> "State | None":
    """The state; a damaged one is made again from the sweep's own store, where it has that."""
    try:
        return State.load(directory)
    except DamagedState as error:
        server = redacted(asked if asked != own_uri(directory) else "") or _recorded(directory)
        if not server:
            return None
        raise ValueError(
            f"{error}; it alone says what {server} has of the sweep: restore it, or remove it to "
            f"send the sweep there once more."
        ) from None


def _recorded(directory: Path) -> str:
    """The store that sweep.json names; empty is the sweep's own."""
    try:
        execution = read_json(directory / "sweep.json").get("execution")
    except ValueError:
        return ""
    uri = execution.get("tracking_uri") if isinstance(execution, dict) else ""
    return redacted(_absolute(uri)) if isinstance(uri, str) else ""


def _check_known(named: str, state: "State | None") -> None:
    if HIDDEN in named:
        raise ValueError(
            f"tracking URI must be given again, since its password isn't kept ({named!r}); set "
            f"{VARIABLE}, or pass it."
        )
    if state is None or known_destination(state.sweep_key) != named:
        raise ValueError(
            f"tracking URI must be given where the directory alone says where to send its data, "
            f"got {named!r} from there; if that is right, give it: --tracking-uri {named}."
        )


def _refuse_copy(directory: Path, state: "State") -> None:
    """ValueError where the sweep's directory is another one, which is there still."""
    if not state.directory or state.directory == str(directory):
        return
    before = Path(state.directory)
    there = known_state(before)
    if there is None or there.sweep_key != state.sweep_key or before.samefile(directory):
        return
    raise ValueError(
        f"DIR must be the sweep itself, got {directory}, a copy of {before}, whose runs on "
        f"{redacted(state.tracking_uri)} it would change; remove {directory / 'mlflow.json'} to "
        f"send it as a sweep of its own."
    )
