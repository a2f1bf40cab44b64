"""The driver's side of MLflow: starts the process that sends, tells it of trials, ends it.

Loads no MLflow (its import takes 2 s). What is not sent stays in the sweep's directory, which is
the record of truth; `sync` sends it later.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

import foretune
from foretune.tuner.tracking.outbox import ARTIFACTS, State, folders, settled, waiting

SERVERS = ("databricks", "http", "https")
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")
"""With `file` the schemes of mlflow 3.17, tracking/_tracking_service/utils.py."""

# The package's __init__ loads torch; a bare package gives the process only the files it needs.
_START = """
import sys
sys.path.insert(0, sys.argv[1])
from foretune.tuner.tracking.process import main
main(sys.argv[2])
"""

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""MLflow's own are 120 s and 7 retries: minutes until a dead server is noticed."""


def check_tracking_uri(uri: str) -> None:
    """Raises ValueError for what MLflow has no store for; empty means mlflow.db in the sweep."""
    if uri in ("", "databricks"):
        return
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme in ("", "file"):
        _check_folder(uri)
        return
    plugins = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    known = sorted({*SERVERS, *DATABASES, "file", *plugins})
    if scheme not in known or (scheme in ("http", "https") and not parts.hostname):
        raise ValueError(
            f"tracking URI must begin with one of {', '.join(known)} and name a place, got "
            f"{public(uri)!r}; write it like http://HOST:5000 or sqlite:////FOLDER/mlflow.db."
        )


def _check_folder(uri: str) -> None:
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise ValueError(
            f"tracking URI must name a server or a database, got the folder {uri!r}, which MLflow "
            f"refuses since 3.17; write sqlite:////FOLDER/mlflow.db or set "
            f"MLFLOW_ALLOW_FILE_STORE=true."
        )


def public(uri: str) -> str:
    """Returns a URI without its password."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}").geturl()


class MLflowSender:
    """Sends a sweep to MLflow while it runs: a run for the sweep, a child for every trial.

    Nothing here waits for MLflow except `close`, and that only as long as it is asked to.
    """

    def __init__(self, sweep_dir: Path, *, tracking_uri: str = "", experiment: str = ""):
        """Raises ValueError for an unknown scheme, or another store than the sweep began with."""
        self._dir = Path(sweep_dir).resolve()
        state = State.load(self._dir)
        self._uri = _agreed_uri(self._dir, tracking_uri, state)
        if state and experiment not in ("", state.experiment):
            raise ValueError(
                f"experiment must stay the one that {self._dir / 'mlflow.json'} names, "
                f"{state.experiment!r}, got {experiment!r}; leave it out, or remove that file to "
                f"send the whole sweep again."
            )
        default = self._uri == _default_uri(self._dir)
        self._state = state or State(
            sweep_key=uuid.uuid4().hex,
            tracking_uri="" if default else public(self._uri),
            experiment=experiment or "foretune",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process that sends; it goes on where an earlier one stopped."""
        if State.load(self._dir) is None:
            self._state.save(self._dir)
        environment = {
            **_PATIENCE,
            **os.environ,
            "MLFLOW_TRACKING_URI": self._uri,
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        }
        with (self._dir / "mlflow.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-c",
                    _START,
                    str(Path(foretune.__file__).parents[1]),
                    str(self._dir),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is the driver's; it closes this one.
            )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def trial_started(self, run_id: str) -> None:
        """Tells that a trial started or went on."""
        self._order("start", run_id, int(time.time() * 1000))

    def trial_ended(self, run_id: str) -> None:
        """Does nothing: the process finds the outcome.json within a second."""

    def artifact(self, path: Path) -> None:
        """Attaches a file or a folder to the sweep's run."""
        path = Path(path).resolve()
        inside = path.relative_to(self._dir) if path.is_relative_to(self._dir) else path
        with (self._dir / ARTIFACTS).open("a") as file:
            file.write(json.dumps(str(inside)) + "\n")

    def close(self, timeout_s: float = 10.0, *, interrupted: bool = False) -> str:
        """Sends what it can, ends the runs; returns "" or a sentence on what waits.

        Unfinished trials, and the sweep with them, end as KILLED.
        """
        if self._process is not None:
            self._order("close", interrupted)
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        return _what_waits(self._dir, public(self._uri))

    def _order(self, *order: object) -> None:
        if self._process is None or self._process.stdin is None:
            return
        # It may have died or be stuck: what it missed waits on disk, and `close` says so.
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), json.dumps(order).encode() + b"\n")


def sync(
    sweep_dir: Path,
    tracking_uri: str = "",
    *,
    artifacts: Iterable[Path] = (),
    timeout_s: float = 600.0,
) -> str:
    """Sends what MLflow has not received; returns "" or a sentence on what still waits.

    artifacts are files or folders to attach to the sweep's run as well.
    A dead server ends it within seconds, a hanging one within half a minute. Raises ValueError
    where there is no sweep, another process sends it, or it began with another store.
    """
    directory = Path(sweep_dir).resolve()
    if next(folders(directory), None) is None:
        raise ValueError(f"DIR must hold a sweep, got {directory} without runs.")
    sender = MLflowSender(directory, tracking_uri=tracking_uri)
    try:
        with FileLock(directory / ".mlflow.lock", timeout=0):
            pass
    except Timeout:
        raise ValueError(
            f"DIR must have one sender at a time, and a sweep that runs in {directory} sends by "
            f"itself; wait for its end."
        ) from None
    for path in artifacts:
        sender.artifact(path)
    if settled(directory, State.load(directory)):
        return ""
    sender.start()
    return sender.close(timeout_s)


def view_hint(sweep_dir: Path) -> str:
    """Returns the command that opens a sweep in MLflow's pages, or their address."""
    directory = Path(sweep_dir).resolve()
    state = State.load(directory)
    uri = (state.tracking_uri if state else "") or _default_uri(directory)
    if uri.startswith("databricks"):
        return f"the experiment {state.experiment if state else 'foretune'} in {uri}"
    if uri.startswith(("http:", "https:")):
        page = f"/#/experiments/{state.experiment_id}" if state and state.experiment_id else ""
        return f"{uri.rstrip('/')}{page}"
    command = ["mlflow"] if shutil.which("mlflow") else [sys.executable, "-m", "mlflow"]
    command += ["server", "--backend-store-uri", uri]
    if uri == _default_uri(directory):
        command += ["--default-artifact-root", (directory / "mlartifacts").as_uri()]
    return shlex.join([*command, "--workers", "1", "--port", "5000"])


def _default_uri(directory: Path) -> str:
    return f"sqlite:///{directory}/mlflow.db"


def _agreed_uri(directory: Path, asked: str, state: State | None) -> str:
    check_tracking_uri(asked)
    if asked.startswith("sqlite:///") and not asked.startswith("sqlite:////"):
        asked = f"sqlite:///{Path(asked.removeprefix('sqlite:///')).absolute()}"
    if state is None:
        return asked or _default_uri(directory)
    known = state.tracking_uri or _default_uri(directory)
    if not asked and ":***@" in known:
        asked = os.environ.get("MLFLOW_TRACKING_URI", "")
    if public(asked or known) != known:
        raise ValueError(
            f"tracking URI must stay the one that {directory / 'mlflow.json'} names, {known!r}, "
            f"got {public(asked)!r}; leave it out, or remove that file to send it all again."
        )
    if not asked and ":***@" in known:
        raise ValueError(
            f"tracking URI must be given again, since its password isn't kept ({known!r}); pass it "
            f"or set MLFLOW_TRACKING_URI."
        )
    return asked or known


def _what_waits(directory: Path, uri: str) -> str:
    state = State.load(directory)
    if settled(directory, state):
        return ""
    trials, rows = waiting(directory, state)
    what = f"{rows} rows of {trials} trials" if trials else "the end of the sweep"
    why = f" ({state.error})" if state and state.error else ""
    return (
        f"MLflow at {uri} has not received {what}{why}; "
        f"`foretune sync {shlex.quote(str(directory))}` sends it later."
    )
