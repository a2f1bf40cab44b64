"""Sends what waits in a sweep's directory to MLflow: the part that knows MlflowClient.

Runs in the process of `tuner.tracking.process`; an exception means that the directory keeps what
waits.
"""

import contextlib
import getpass
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from foretune.tuner.tracking.artifacts import artifacts, files, is_inside
from foretune.tuner.tracking.batches import log_in_batches
from foretune.tuner.tracking.empty_database import begin_database
from foretune.tuner.tracking.fields import (
    FIRST,
    LAST,
    Metric,
    end_ms,
    label,
    outcome_tags,
    row_metrics,
    run_params,
    start_ms,
    summary_metrics,
    sweep_params,
    sweep_tags,
    varying_paths,
)
from foretune.tuner.tracking.outbox import (
    FORMAT,
    STATUS,
    Mark,
    State,
    ended,
    folders,
    read_rows,
    read_run,
    unread,
)
from foretune.tuner.tracking.own_store import DATABASE, put_here
from foretune.tuner.tracking.reasons import refuses, why
from foretune.tuner.tracking.stores import own_uri

LIVE_S = 5.0
"""Seconds between two sendings of a run that goes on: fewer, larger batches."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the store has of a run's rows, by step."""

    complete: set[int]
    begun: set[int]


class Sender:
    """Sends what waits in a directory through one MlflowClient; raises where MLflow does."""

    def __init__(self, sweep_dir: Path, tracking_uri: str):
        state = State.load(sweep_dir)
        assert state is not None, "MLflowSender.start writes it"
        self.dir, self.state, self.uri = sweep_dir, state, tracking_uri
        self.calls = 0
        self.refused: dict[str, str] = {}
        self.started: dict[str, int] = {}
        self._certain = False
        self._sent: dict[str, Sent] = {}
        self._sent_at: dict[str, float] = {}
        self._saved_at = 0.0
        self._varying: dict[str, str | None] | None = None
        self._client: Any = None

    def send(self, *, closing: str = "") -> None:
        """Sends what is due; with a status for the sweep in `closing`, sends all and ends runs."""
        try:
            self._connect()
            for folder in self._due(closing):
                with self._refusal(folder.name):
                    self._send_run(folder, closing)
                self.started.pop(folder.name, None)
                self._sent_at[folder.name] = time.monotonic()
                self.save()
            if closing:
                self._client.set_terminated(self.state.parent_run_id, closing)
                self.state.parent_status = closing
            self._send_artifacts()
        except Exception:
            # An answer may be lost: the store is asked what it has before anything is sent again.
            self._certain = False
            raise

    def save(self, *, now: bool = False) -> None:
        """Writes mlflow.json; at most once a second unless `now`."""
        if now or time.monotonic() - self._saved_at > 1.0:
            self.state.save(self.dir)
            self._saved_at = time.monotonic()

    def _connect(self) -> None:
        from mlflow.tracking import MlflowClient

        state = self.state
        if self._client is None:
            if self.uri == own_uri(self.dir):
                begin_database(self.dir / DATABASE)
                put_here(self.dir, state)
            self._client = MlflowClient(self.uri)
        if not state.experiment_id:
            found = self._client.get_experiment_by_name(state.experiment)
            state.experiment_id = found.experiment_id if found else self._create_experiment()
        if not self._certain:
            self._ask()
        if not state.parent_run_id:
            self._create_parent()
        if state.parent_status == "CREATED":
            self.calls += log_in_batches(
                self._client, state.parent_run_id, params=sweep_params(self.dir)
            )
        elif state.parent_status != "RUNNING":
            self._client.update_run(state.parent_run_id, "RUNNING")
            self.calls += log_in_batches(
                self._client, state.parent_run_id, tags=sweep_tags(self.dir)
            )
        state.parent_status = "RUNNING"

    def _create_experiment(self) -> str:
        location = None
        if self.uri.startswith("sqlite"):  # MLflow would take ./mlruns, wherever it stands.
            database = self.uri.partition(":///")[2].partition("?")[0]
            location = (Path(unquote(database)).absolute().parent / "mlartifacts").as_uri()
        return self._client.create_experiment(self.state.experiment, artifact_location=location)

    def _ask(self) -> None:
        """Learns from the store what a lost answer or a killed sender did not note down.

        Runs that have ended, too: mlflow.json is written once a second.
        """
        state, token = self.state, None
        ours = f"tags.`foretune.sweep` = '{state.sweep_key}'"
        while True:
            page = self._client.search_runs([state.experiment_id], ours, page_token=token)
            for run in page:
                run_id = run.data.tags.get("foretune.run_id")
                status = run.info.status if run.info.status != "RUNNING" else "CREATED"
                if run_id is not None:
                    mark = Mark(run.info.run_id, run.info.start_time, status=status)
                    state.runs.setdefault(run_id, mark)
                elif not state.parent_run_id:
                    state.parent_run_id, state.parent_status = run.info.run_id, status
            token = page.token
            if not token:
                break
        for run_id, mark in state.runs.items():
            if run_id not in self.refused and (not mark.closed or state.format < FORMAT):
                with self._refusal(run_id):
                    self._ask_run(run_id, mark)
        state.format = FORMAT
        self._certain = True

    def _ask_run(self, run_id: str, mark: Mark) -> None:
        """Lets a run's file be read from its start, less what the store has of it.

        An older version's run that has ended is left alone where nothing is missing.
        """
        sent = Sent(complete=self._steps(mark, LAST), begun=self._steps(mark, FIRST))
        if mark.closed:
            whole, path = Mark("", 0), self.dir / "runs" / run_id / "metrics.jsonl"
            rows, _, _ = read_rows(path, whole, ended=True)
            mark.closed = all(int(r["step"]) in sent.complete or LAST not in r for r in rows)
        if not mark.closed:
            self._sent[run_id] = sent
            mark.offset, mark.inode, mark.step = 0, 0, -1

    def _steps(self, mark: Mark, key: str) -> set[int]:
        history = self._client.get_metric_history(mark.mlflow_run_id, key)
        return {metric.step for metric in history}

    def _unsent(self, run_id: str, mark: Mark, row: Mapping[str, float]) -> list[Metric]:
        """Of a row what the store doesn't have: another driver may have sent it, or its begin."""
        metrics, sent, step = row_metrics(row, mark.start_ms), self._sent.get(run_id), row["step"]
        if sent is None or step not in sent.begun | sent.complete:
            return metrics
        if step in sent.complete:
            return []
        return [metric for metric in metrics if step not in self._steps(mark, metric[0])]

    def _create_parent(self) -> None:
        now_ms = int(1000 * time.time())
        self.state.parent_run_id = self._create_run(sweep_tags(self.dir), self.dir.name, now_ms)
        self.state.parent_status = "CREATED"

    def _create_run(self, tags: dict[str, str], name: str, started_ms: int) -> str:
        tags = {**tags, "foretune.sweep": self.state.sweep_key}
        with contextlib.suppress(OSError, KeyError, ImportError):  # No name in some containers.
            tags["mlflow.user"] = getpass.getuser()
        run = self._client.create_run(
            self.state.experiment_id, start_time=started_ms, tags=tags, run_name=name
        )
        return run.info.run_id

    def _due(self, closing: str) -> list[Path]:
        return [folder for folder in folders(self.dir) if self._is_due(folder, closing)]

    def _is_due(self, folder: Path, closing: str) -> bool:
        run_id, mark = folder.name, self.state.runs.get(folder.name)
        if run_id in self.refused:
            return False
        if run_id in self.started:
            return True
        if mark and mark.closed:
            return False
        if ended(folder):
            return True
        if not closing and time.monotonic() - self._sent_at.get(run_id, -LIVE_S) < LIVE_S:
            return False
        return bool(mark and mark.open) or unread(folder / "metrics.jsonl", mark, ended=False) > 0

    @contextlib.contextmanager
    def _refusal(self, run_id: str) -> Iterator[None]:
        """Sets a run aside that MLflow won't have (deleted, say): it must not hold up others."""
        try:
            yield
        except Exception as error:
            if not refuses(error):
                raise
            self.refused[run_id] = f"run {run_id}: {why(error, self.uri)}"

    def _send_run(self, folder: Path, closing: str) -> None:
        facts, outcome = read_run(folder)
        ended_ms = end_ms(folder, outcome)
        mark = self.state.runs.get(folder.name) or self._create_child(folder, facts, outcome)
        if not mark.open:
            self._client.update_run(mark.mlflow_run_id, "RUNNING")
            mark.status, mark.closed = "RUNNING", False
        more = True
        while more:
            path = folder / "metrics.jsonl"
            rows, place, more = read_rows(path, mark, ended=bool(outcome))
            last = outcome if not more else {}
            self.calls += log_in_batches(
                self._client,
                mark.mlflow_run_id,
                metrics=[m for row in rows for m in self._unsent(folder.name, mark, row)]
                + summary_metrics(last, ended_ms),
                params=run_params(facts) if mark.status == "CREATED" else {},
                tags=outcome_tags(last),
            )
            mark.status = "RUNNING"
            mark.offset, mark.inode, mark.step = place
        if outcome or closing:
            status = STATUS[outcome["outcome"]] if outcome else "KILLED"
            self._client.set_terminated(mark.mlflow_run_id, status, ended_ms)
            mark.status, mark.closed = status, bool(outcome)
            self._sent.pop(folder.name, None)

    def _create_child(
        self, folder: Path, facts: Mapping[str, Any], outcome: Mapping[str, Any]
    ) -> Mark:
        if self._varying is None:
            self._varying = varying_paths(self.dir)
        started_ms = self.started.get(folder.name) or start_ms(folder, outcome)
        tags = {
            "foretune.kind": "trial",
            "foretune.run_id": folder.name,
            "mlflow.parentRunId": self.state.parent_run_id,
        }
        name = label(facts, self._varying)
        mark = Mark(self._create_run(tags, name, started_ms), started_ms)
        self.state.runs[folder.name] = mark
        return mark

    def _send_artifacts(self) -> None:
        for name in artifacts(self.dir)[self.state.artifacts_sent :]:
            outside = []
            for path, folder in files(self.dir, name):
                if is_inside(path, self.dir):
                    self._client.log_artifact(self.state.parent_run_id, str(path), folder)
                else:
                    outside.append(path)
            if outside:
                more = f" and {len(outside) - 1} more" if outside[1:] else ""
                self.refused[f"artifact {name}"] = (
                    f"artifacts must be inside the sweep's directory, got {outside[0]}{more}, "
                    f"which leads outside and isn't sent"
                )
            self.state.artifacts_sent += 1
            self.calls += 1
