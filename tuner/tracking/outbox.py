"""What of a sweep's directory waits for MLflow: metrics.jsonl and outcome.json, less mlflow.json.

The directory is the outbox, mlflow.json says how far the sender got. The JSON of runs and sweeps is
read as it is: `tuner.records` decodes runs, for which it loads torch, and the sender's process is
to be light beside the training.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from foretune.analysis.records.rows import parse_row
from foretune.tuner.tracking.artifacts import artifacts
from foretune.whole_files import atomic_write

BASE = frozenset({"step", "loss", "lr", "grad_norm", "tokens_seen", "seconds"})
"""Columns of every row. A row with nothing more isn't sent: metrics.jsonl keeps every step."""

STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "diverged": "FINISHED", "failed": "FAILED"}
"""How MLflow calls an outcome."""

CHUNK_BYTES = 1 << 20
FORMAT = 2
"""Of mlflow.json. In the first a run that was interrupted could lack its last row for good."""

T = TypeVar("T")


class DamagedRun(ValueError):
    """A file of a run isn't what was written."""


class DamagedState(ValueError):
    """mlflow.json is there, and isn't what a sender wrote."""


@dataclass(slots=True)
class Mark:
    """How far a run has been sent."""

    mlflow_run_id: str
    start_ms: int
    offset: int = 0
    inode: int = 0
    step: int = -1
    """Last step read; lower ones aren't sent again."""
    status: str = "CREATED"
    """CREATED until its params are there, then MLflow's words."""
    closed: bool = False
    """All of it has been sent, its outcome included."""

    @property
    def open(self) -> bool:
        """Whether MLflow still shows it as going on."""
        return self.status in ("CREATED", "RUNNING")


@dataclass(slots=True)
class State:
    """The content of mlflow.json."""

    sweep_key: str
    """Tag by which the store's runs are found again."""
    tracking_uri: str = ""
    """Without its password; empty is mlflow.db in the directory, wherever that is moved."""
    experiment: str = "foretune"
    experiment_id: str = ""
    parent_run_id: str = ""
    parent_status: str = ""
    artifacts_sent: int = 0
    error: str = ""
    """Why the last attempt failed, or what was refused; empty where nothing was."""
    directory: str = ""
    """Where the sweep was when it was sent last: a copy is elsewhere."""
    format: int = FORMAT
    runs: dict[str, Mark] = field(default_factory=dict)

    @classmethod
    def load(cls, sweep_dir: Path) -> "State | None":
        """Returns the state of a directory; none before its first sender.

        Keys of another version are passed over. Raises DamagedState for anything else.
        """
        path = sweep_dir / "mlflow.json"
        try:
            found = json.loads(path.read_text())
            runs = {name: _typed(Mark, facts) for name, facts in found.get("runs", {}).items()}
            return _typed(cls, {"format": 1, **found, "runs": runs})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            raise DamagedState(
                f"{path} must be what the sender wrote, got a damaged file ({reason})"
            ) from None

    def save(self, sweep_dir: Path) -> None:
        """Writes mlflow.json whole or not at all."""
        with atomic_write(sweep_dir / "mlflow.json") as partial:
            partial.write_text(json.dumps(asdict(self), indent=1))


def _typed(target: type[T], facts: dict[str, Any]) -> T:
    """Returns a dataclass of JSON values; TypeError for one of another type, or missing."""
    values: dict[str, Any] = {}
    for f in fields(cast("Any", target)):
        if f.name in facts:
            kind = {str: str, int: int, bool: bool}.get(f.type, dict)  # pyright: ignore
            if type(facts[f.name]) is not kind:
                raise TypeError(f"{f.name} is {facts[f.name]!r:.50}")
            values[f.name] = facts[f.name]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise TypeError(f"{f.name} is missing")
    return target(**values)


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a file; an empty one where there is no file (yet)."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns run.json and outcome.json, which is empty before the end; DamagedRun for others."""
    facts, outcome = {}, {}
    try:
        facts, outcome = (read_json(folder / name) for name in ("run.json", "outcome.json"))
        whole = isinstance(facts["config"], dict) and (
            outcome == {} or outcome["outcome"] in STATUS
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedRun(f"its run.json or outcome.json is damaged in {folder}; restore it")
    return facts, outcome


def folders(sweep_dir: Path) -> Iterator[Path]:
    """Yields the folders of runs that are written down, by name."""
    for path in sorted((sweep_dir / "runs").glob("*/run.json")):
        yield path.parent


def ended(folder: Path) -> bool:
    """Whether a run has its outcome."""
    return (folder / "outcome.json").exists()


def read_rows(
    path: Path, mark: Mark, *, ended: bool
) -> tuple[list[dict[str, float]], tuple[int, int, int], bool]:
    """Returns the rows to send, the (offset, inode, step) after them, and whether more may wait.

    A resumed run replaces its file by a shorter one and repeats steps: then this reads from the
    start and passes over the steps it knows. A torn last line waits for its end, and so does a last
    row without its loss until the run has ended: an interruption writes what it has of a step, and
    the whole row comes when the run goes on.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return [], (mark.offset, mark.inode, mark.step), False
    with file:
        inode, offset = os.fstat(file.fileno()).st_ino, mark.offset
        file.seek(max(0, offset - 1))
        if inode != mark.inode or (offset and file.read(1) != b"\n"):
            offset = 0
        file.seek(offset)
        data = file.read(CHUNK_BYTES)
        more = len(data) == CHUNK_BYTES
        while b"\n" not in data and (further := file.read(CHUNK_BYTES)):
            data += further
    whole = _to_send(data, ended=ended)
    rows, step = [], mark.step
    for line in whole.split(b"\n"):
        row = _finite(line)
        if row.get("step", -1) > step:
            step = int(row["step"])
            if row.keys() - BASE:
                rows.append(row)
    return rows, (offset + len(whole), inode, step), more and len(whole) > 0


def _to_send(data: bytes, *, ended: bool) -> bytes:
    """The lines of a file's end that may be sent."""
    whole = data[: data.rfind(b"\n") + 1]
    last = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    waits = not ended and last and "loss" not in (parse_row(last) or {"loss": None})
    return whole[: -len(last)] if waits else whole


def _finite(line: bytes) -> dict[str, float]:
    """The finite numbers of a line; none of a damaged one."""
    return {key: value for key, value in (parse_row(line) or {}).items() if is_number(value)}


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def unread(path: Path, mark: Mark | None, *, ended: bool) -> int:
    """Returns how many lines of a metrics file could be sent and have not been read."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0
    start = mark.offset if mark and mark.inode == stat.st_ino else 0
    if start == stat.st_size:  # The usual case, at the cost of no reading.
        return 0
    with path.open("rb") as file:
        file.seek(start)
        return _to_send(file.read(), ended=ended).count(b"\n")


def waiting(sweep_dir: Path, state: State | None) -> tuple[int, int]:
    """Returns how many trials wait for MLflow, and how many rows of them."""
    trials = rows = 0
    for folder in folders(sweep_dir):
        mark = state.runs.get(folder.name) if state else None
        if mark and mark.closed:
            continue
        lines = unread(folder / "metrics.jsonl", mark, ended=ended(folder))
        if lines or ended(folder) or (mark and mark.open):
            trials, rows = trials + 1, rows + lines
    return trials, rows


def settled(sweep_dir: Path, state: State | None) -> bool:
    """Whether nothing of a sweep waits: trials, artifacts and its own status."""
    return (
        state is not None
        and state.format == FORMAT
        and state.parent_status in ("FINISHED", "KILLED")
        and state.artifacts_sent >= len(artifacts(sweep_dir))
        and waiting(sweep_dir, state) == (0, 0)
    )
