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
from pathlib import Path

from filelock import FileLock, Timeout

import foretune
from foretune.redaction import redacted
from foretune.tuner.tracking.artifacts import ask_for
from foretune.tuner.tracking.destinations import remember_destination
from foretune.tuner.tracking.outbox import State, folders, settled, waiting
from foretune.tuner.tracking.own_store import mend
from foretune.tuner.tracking.stores import agreed_uri, known_state, own_uri

# The package's __init__ loads torch; a bare package gives the process only the files it needs.
_START = """
import sys
sys.path.insert(0, sys.argv[1])
from foretune.tuner.tracking.process import main
main(sys.argv[2])
"""

OTHER_SENDER_S = 10.0
"""How long a killed driver's sender may take to end."""

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""MLflow's own are 120 s and 7 retries: minutes until a dead server is noticed."""


class MLflowSender:
    """Sends a sweep to MLflow while it runs: a run for the sweep, a child for every trial.

    Nothing here waits for MLflow except `close`, and that only as long as it is asked to.
    """

    def __init__(self, sweep_dir: Path, *, tracking_uri: str = "", experiment: str = ""):
        """Raises ValueError as `agreed_uri` does, and for another experiment than it began with."""
        self._dir = Path(sweep_dir).resolve()
        self._uri, self._asked = agreed_uri(self._dir, tracking_uri)
        state = known_state(self._dir)
        if state and experiment not in ("", state.experiment):
            raise ValueError(
                f"experiment must stay the one that {self._dir / 'mlflow.json'} names, "
                f"{state.experiment!r}, got {experiment!r}; leave it out, or remove that file to "
                f"send the whole sweep again."
            )
        self._experiment = experiment or "foretune"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process that sends; it goes on where an earlier one stopped."""
        self.prepare()
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

    def prepare(self) -> None:
        """Writes mlflow.json, and mends what is damaged of it and of the sweep's own database."""
        own = self._uri == own_uri(self._dir)
        lock = FileLock(self._dir / ".mlflow.lock", timeout=OTHER_SENDER_S if own else 0)
        try:
            with lock:
                state, sentence = known_state(self._dir), ""
                if own:
                    state, sentence = mend(self._dir, state)
                if sentence:
                    print(f"MLflow: {sentence}", file=sys.stderr, flush=True)
                state = state or self._new_state("" if own else redacted(self._uri))
                state.directory = str(self._dir)
                state.save(self._dir)
        except Timeout:
            # A killed driver's sender is at work still: it has mended, and writes down its state.
            state = known_state(self._dir)
        if self._asked and state is not None:
            remember_destination(state.sweep_key, state.tracking_uri)

    def _new_state(self, uri: str) -> State:
        key = uuid.uuid4().hex
        return State(sweep_key=key, tracking_uri=uri, experiment=self._experiment)

    def trial_started(self, run_id: str) -> None:
        """Tells that a trial started or went on."""
        self._order("start", run_id, int(time.time() * 1000))

    def trial_ended(self, run_id: str) -> None:
        """Does nothing: the process finds the outcome.json within a second."""

    def artifact(self, path: Path) -> None:
        """Attaches a file or a folder to the sweep's run; it must be inside the directory."""
        ask_for(self._dir, path)

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
        return _what_waits(self._dir, redacted(self._uri))

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
    where there is no sweep, another process sends it, or as `agreed_uri` does.
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
    sender.prepare()
    if settled(directory, State.load(directory)):
        return sender.close()
    sender.start()
    return sender.close(timeout_s)


def view_hint(sweep_dir: Path) -> str:
    """Returns the command that opens a sweep in MLflow's pages, or their address."""
    directory = Path(sweep_dir).resolve()
    state = known_state(directory)
    uri = redacted(state.tracking_uri if state else "") or own_uri(directory)
    if uri.startswith("databricks"):
        return f"the experiment {state.experiment if state else 'foretune'} in {uri}"
    if uri.startswith(("http:", "https:")):
        page = f"/#/experiments/{state.experiment_id}" if state and state.experiment_id else ""
        return f"{uri.rstrip('/')}{page}"
    command = ["mlflow"] if shutil.which("mlflow") else [sys.executable, "-m", "mlflow"]
    command += ["server", "--backend-store-uri", uri]
    if uri == own_uri(directory):
        command += ["--default-artifact-root", (directory / "mlartifacts").as_uri()]
    return shlex.join([*command, "--workers", "1", "--port", "5000"])


def check_destination(directory: Path, tracking_uri: str) -> None:
    """Raises ValueError where a sweep can't be sent, before anything is done; see `agreed_uri`."""
    MLflowSender(directory, tracking_uri=tracking_uri)


def _what_waits(directory: Path, uri: str) -> str:
    state = known_state(directory)
    if settled(directory, state):
        return f"MLflow at {uri}: {state.error}." if state and state.error else ""
    trials, rows = waiting(directory, state)
    what = f"{rows} rows of {trials} trials" if trials else "the end of the sweep"
    why = f" ({state.error})" if state and state.error else ""
    return (
        f"MLflow at {uri} has not received {what}{why}; "
        f"`foretune sync {shlex.quote(str(directory))}` sends it later."
    )
