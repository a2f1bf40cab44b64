"""Sweeps as they lie on disk, made by hand, and the same sweeps as MLflow has them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from foretune.tuner.tracking.outbox import BASE, State
from foretune.tuner.tracking.process import follow
from foretune.tuner.tracking.sender import MLflowSender
from foretune.tuner.tracking.uploader import Sender

LONG_S = 3600.0  # For closing where nothing is wrong: the test's own limit ends what hangs.
_senders: list[MLflowSender] = []


def sender_of(sweep_dir: Path, **how: str) -> MLflowSender:
    """A sender whose process ends with the test, even if nobody closes it."""
    sender = MLflowSender(sweep_dir, **how)
    _senders.append(sender)
    return sender


def end_started() -> None:
    """Kills the senders that still run; one that was closed has no process."""
    while _senders:
        process = _senders.pop()._process
        if process is not None:
            process.kill()
            process.wait()
            process.stdin.close()


def row(step: int) -> dict[str, float]:
    """Telemetry at every tenth step, a validation at every fiftieth."""
    values = {"step": step, "loss": 5.0 - 0.01 * step, "lr": 0.01, "grad_norm": 1.0}
    if step % 10 == 0:
        values |= {f"rms_layer{i}": step + 0.5 * i for i in range(5)}
    if step % 50 == 0:
        values["val_loss"] = 5.0 - 0.005 * step
    return {**values, "tokens_seen": 512 * step, "seconds": 0.01 * step}


def write_rows(folder: Path, steps: range, *, mode: str = "a") -> None:
    with (folder / "metrics.jsonl").open(mode) as file:
        file.writelines(json.dumps(row(step)) + "\n" for step in steps)


def add_run(sweep_dir: Path, name: str, *, lr: float, rows: int = 0) -> Path:
    folder = sweep_dir / "runs" / name
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "model": {"kind": "transformer", "width": 64, "qk_norm": True},
        "data": {"name": "python", "path": ""},
        "optimizer": {"name": "adamw", "lr": lr},
        "probes": [],
    }
    facts = {"run_id": name, "config": config, "size": 64, "n_params": 98304}
    (folder / "run.json").write_text(json.dumps(facts))
    write_rows(folder, range(rows))
    return folder


def end_run(folder: Path, outcome: str = "finished", *, step: int = 100) -> None:
    facts = {
        "run_id": folder.name,
        "outcome": outcome,
        "step": step,
        "reason": f"it {outcome}",
        "tensor": "loss" if outcome == "diverged" else "",
        "value": "inf" if outcome == "diverged" else None,
        "loss_at_init": 5.5,
        "final_val_loss": None if outcome == "failed" else 4.5,
        "objective": 5.5 if outcome == "failed" else 4.5,
        "seconds": 1.0,
    }
    (folder / "outcome.json").write_text(json.dumps(facts))


def add_sweep(sweep_dir: Path) -> Path:
    sweep_dir.mkdir(parents=True)
    facts = {
        "command": "foretune sweep lr --set model.api_key=secret --out here",
        "commit": "0123abcd",
        "space": {"optimizer.lr": [0.01, 0.03]},
        "preset": "lm-tiny",
        "search": "grid",
        "scheduler": "none",
        "seed": 0,
        "execution": {"tracking_uri": ""},
        "overrides": {"model.api_key": "secret"},
    }
    (sweep_dir / "sweep.json").write_text(json.dumps(facts))
    return sweep_dir


def store(sweep_dir: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{sweep_dir}/mlflow.db")


def children(client: MlflowClient, sweep_dir: Path) -> dict[str, Run]:
    """The trials of a sweep as MLflow has them, by run_id; each exactly once."""
    state = state_of(sweep_dir)
    ours = f"tags.mlflow.parentRunId = '{state.parent_run_id}'"
    found = client.search_runs([state.experiment_id], ours)
    by_id = {run.data.tags["foretune.run_id"]: run for run in found}
    assert len(by_id) == len(found)
    return by_id


def parent(client: MlflowClient, sweep_dir: Path) -> Run:
    """The sweep as MLflow has it, exactly once."""
    sweeps = client.search_runs(["1"], "tags.`foretune.kind` = 'sweep'")
    assert [run.info.run_id for run in sweeps] == [state_of(sweep_dir).parent_run_id]
    return sweeps[0]


def steps(client: MlflowClient, run: Run, key: str = "loss") -> list[int]:
    return sorted(m.step for m in client.get_metric_history(run.info.run_id, key))


def state_of(sweep_dir: Path) -> State:
    state = State.load(sweep_dir)
    assert state is not None
    return state


def wait_for(what: Callable[[], Any]) -> None:
    """Waits for what another process does; the test's own limit ends what hangs."""
    while not what():
        time.sleep(0.1)


def send_all(sweep_dir: Path, *, interrupted: bool = False) -> str:
    """Sends what waits as the process does, in this one; returns what `close` says of the rest.

    Starting the process takes 3 s of MLflow's import each time.
    """
    sender = MLflowSender(sweep_dir)
    sender.prepare()
    orders: SimpleQueue[list[Any]] = SimpleQueue()
    orders.put(["close", interrupted])
    follow(Sender(sender._dir, sender._uri), orders)
    return sender.close()


def histories(client: MlflowClient, run: Run) -> dict[str, list[tuple[int, float]]]:
    """Every column of a run as the store has it: steps and values, in order, repeated ones too."""
    skipped = {"final_val_loss", "objective", "loss_at_init", "diverged"}
    return {
        key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics.keys() - skipped
    }


def columns(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of the rows in metrics.jsonl that MLflow gets."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if values.keys() - BASE:
            for key in values.keys() - {"step"}:
                found.setdefault(key, []).append((values["step"], values[key]))
    return {key: sorted(rows) for key, rows in found.items()}


def differing(client: MlflowClient, run: Run, folder: Path, *, clock: bool = True) -> list[str]:
    """Names of the columns that the store hasn't as metrics.jsonl has them, to the bit.

    Without the clock, the column `seconds` is held to its steps alone: MLflow can't take a value
    back, and rows that a worker trains again, because it ended before it saved them, took another
    time.
    """
    sent, kept = histories(client, run), columns(folder)
    if not clock:
        for rows in (sent, kept):
            rows["seconds"] = [(step, 0.0) for step, _ in rows.get("seconds", [])]
    return sorted(key for key in sent.keys() | kept.keys() if sent.get(key) != kept.get(key))
