"""Sending to MLflow, against real stores: sqlite, a server that dies, one that never answers."""

import json
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tuner.mlflow_outbox import Mark, State, read_rows
from tuner.mlflow_tracker import MLflowSender, check_tracking_uri, public, sync, view_hint

ROOT = Path(__file__).parents[2]
LONG_S = 60.0  # For closing where nothing is wrong; two shared cores can be slow.


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
        "command": "foretune sweep lr --out here",
        "commit": "0123abcd",
        "space": {"optimizer.lr": [0.01, 0.03]},
        "preset": "lm-tiny",
        "search": "grid",
        "scheduler": "none",
        "seed": 0,
        "execution": {"tracking_uri": "http://user:secret@host"},
    }
    (sweep_dir / "sweep.json").write_text(json.dumps(facts))
    return sweep_dir


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes 1.5 s."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def new_dir(tmp_path: Path) -> Path:
    return add_sweep(tmp_path / "my sweep")


@pytest.fixture
def sweep_dir(new_dir: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, new_dir / "mlflow.db")
    return new_dir


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


def wait_for(what: Callable[[], Any], seconds: float = 40.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)


def send_all(sweep_dir: Path) -> str:
    sender = MLflowSender(sweep_dir)
    sender.start()
    return sender.close(LONG_S)


def test_a_sweep_arrives_with_its_trials_as_children(new_dir: Path):
    outcomes = {"a": "finished", "b": "diverged", "c": "stopped", "d": "failed"}
    for number, (name, outcome) in enumerate(outcomes.items()):
        end_run(add_run(new_dir, name, lr=0.01 * (number + 1), rows=101), outcome)
    assert send_all(new_dir) == ""

    client = store(new_dir)
    top = parent(client, new_dir)
    assert top.info.status == "FINISHED"
    assert top.info.run_name == "my sweep"
    assert top.data.tags["foretune.command"] == "foretune sweep lr --out here"
    assert top.data.tags["foretune.commit"] == "0123abcd"
    assert json.loads(top.data.tags["foretune.space"]) == {"optimizer.lr": [0.01, 0.03]}
    assert top.data.params["preset"] == "lm-tiny"
    assert top.data.params["search"] == "grid"
    assert "secret" not in str(top.to_dictionary())

    found = children(client, new_dir)
    assert {name: run.data.tags["foretune.outcome"] for name, run in found.items()} == outcomes
    assert {name: run.info.status for name, run in found.items()} == {
        "a": "FINISHED",
        "b": "FINISHED",
        "c": "FINISHED",
        "d": "FAILED",
    }
    assert {name: run.data.metrics["diverged"] for name, run in found.items()} == {
        "a": 0.0,
        "b": 1.0,
        "c": 0.0,
        "d": 0.0,
    }
    run = found["b"]
    assert run.info.run_name == "d64 lr=0.02 seed=0"
    assert run.data.tags["foretune.reason"] == "it diverged"
    assert run.data.tags["foretune.diverged"] == "true"
    assert run.data.params["optimizer.lr"] == "0.02"
    assert run.data.params["model.qk_norm"] == "True"
    assert run.data.params["n_params"] == "98304"
    assert run.data.metrics["final_val_loss"] == 4.5
    assert run.data.metrics["objective"] == 4.5
    assert run.data.metrics["loss_at_init"] == 5.5
    assert "final_val_loss" not in found["d"].data.metrics


def test_validations_and_telemetry_arrive_whole_and_other_rows_not_at_all(sweep_dir: Path):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=101))
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    run = children(client, sweep_dir)["a"]
    assert steps(client, run) == list(range(0, 101, 10))
    assert steps(client, run, "val_loss") == [0, 50, 100]
    layer = client.get_metric_history(run.info.run_id, "rms_layer3")
    assert [(m.step, m.value) for m in layer] == [(s, s + 1.5) for s in range(0, 101, 10)]
    assert [m.timestamp for m in layer] == [run.info.start_time + 10 * s for s in range(0, 101, 10)]


def test_what_is_not_finite_is_never_sent(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01)
    line = {"step": 0, "loss": math.inf, "lr": math.nan, "val_loss": -math.inf, "rms": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n{damaged\n")
    end_run(folder, "diverged")
    assert send_all(sweep_dir) == ""
    run = children(store(sweep_dir), sweep_dir)["a"]
    assert run.data.metrics["rms"] == 1.0
    assert run.data.metrics.keys().isdisjoint({"loss", "lr", "val_loss"})


def test_more_columns_and_fields_than_one_call_takes(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01)
    facts = json.loads((folder / "run.json").read_text())
    facts["config"]["own"] = {f"field{i}": "x" * 7000 for i in range(150)}
    (folder / "run.json").write_text(json.dumps(facts))
    wide = {"step": 0, "loss": 5.0, **{f"tap/{i}:x": float(i) for i in range(2500)}}
    (folder / "metrics.jsonl").write_text(json.dumps(wide) + "\n")
    end_run(folder)
    assert send_all(sweep_dir) == ""
    run = children(store(sweep_dir), sweep_dir)["a"]
    assert len(run.data.params) == 150 + 11
    assert len(run.data.params["own.field0"]) == 6000
    assert sum(key.startswith("tap_") for key in run.data.metrics) == 2500


def test_rows_are_sent_while_a_trial_goes_on_and_a_torn_line_waits(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01)
    sender = MLflowSender(sweep_dir)
    sender.start()
    sender.trial_started("a")
    write_rows(folder, range(20))
    whole = json.dumps(row(20)) + "\n"
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(whole[:30])
        file.flush()
        wait_for(lambda: "a" in (runs := state_of(sweep_dir).runs) and runs["a"].step == 19)
        client = store(sweep_dir)
        run = children(client, sweep_dir)["a"]
        assert run.info.status == "RUNNING"
        assert parent(client, sweep_dir).info.status == "RUNNING"
        assert steps(client, run) == [0, 10]
        file.write(whole[30:])
    end_run(folder)
    sender.trial_ended("a")
    wait_for(lambda: state_of(sweep_dir).runs["a"].closed)
    assert sender.close(LONG_S) == ""
    assert steps(client, run) == [0, 10, 20]


def test_a_resumed_sweep_goes_on_in_the_same_runs(sweep_dir: Path):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=101))
    folder = add_run(sweep_dir, "b", lr=0.03, rows=65)
    add_run(sweep_dir, "c", lr=0.1)
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    first, top = children(client, sweep_dir), parent(client, sweep_dir)
    assert first.keys() == {"a", "b"}
    assert first["b"].info.status == "KILLED"
    assert top.info.status == "KILLED"

    sender = MLflowSender(sweep_dir)
    sender.start()
    sender.trial_started("b")
    wait_for(lambda: state_of(sweep_dir).runs["b"].status == "RUNNING")
    assert parent(client, sweep_dir).info.status == "RUNNING"
    # As tuner.rundir.MetricsFile does: cut back to the checkpoint, then repeat steps.
    partial = folder / "metrics.jsonl.partial"
    partial.write_text("".join(json.dumps(row(s)) + "\n" for s in range(40)))
    partial.replace(folder / "metrics.jsonl")
    write_rows(folder, range(40, 101))
    end_run(folder)
    end_run(sweep_dir / "runs" / "c", "failed")
    assert sender.close(LONG_S) == ""

    second = children(client, sweep_dir)
    assert second.keys() == {"a", "b", "c"}
    assert all(second[name].info.run_id == first[name].info.run_id for name in first)
    assert second["b"].info.status == "FINISHED"
    assert steps(client, second["b"]) == list(range(0, 101, 10))
    assert parent(client, sweep_dir).info.run_id == top.info.run_id
    assert parent(client, sweep_dir).info.status == "FINISHED"


def test_an_interrupted_sweep_is_killed_even_if_no_trial_is_open(sweep_dir: Path):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    sender = MLflowSender(sweep_dir)
    sender.start()
    assert sender.close(LONG_S, interrupted=True) == ""
    assert parent(store(sweep_dir), sweep_dir).info.status == "KILLED"


def test_what_a_killed_sender_did_not_note_down_is_found_in_the_store(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01, rows=65)
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    before = state_of(sweep_dir)
    for run_id in (before.parent_run_id, before.runs["a"].mlflow_run_id):
        client.update_run(run_id, "RUNNING")
    State(sweep_key=before.sweep_key).save(sweep_dir)
    write_rows(folder, range(65, 101))
    end_run(folder)
    assert send_all(sweep_dir) == ""
    assert state_of(sweep_dir).parent_run_id == before.parent_run_id
    run = children(client, sweep_dir)["a"]
    assert run.info.run_id == before.runs["a"].mlflow_run_id
    assert steps(client, run) == list(range(0, 101, 10))


def test_a_run_that_mlflow_refuses_does_not_hold_up_the_others(sweep_dir: Path):
    for name in "ab":
        add_run(sweep_dir, name, lr=0.01, rows=11)
    assert send_all(sweep_dir) == ""
    store(sweep_dir).delete_run(state_of(sweep_dir).runs["a"].mlflow_run_id)
    for name in "ab":
        end_run(sweep_dir / "runs" / name)
    message = send_all(sweep_dir)
    assert "1 trials" in message
    assert "run a" in message
    assert children(store(sweep_dir), sweep_dir)["b"].info.status == "FINISHED"


def test_files_and_folders_are_attached_to_the_sweep(sweep_dir: Path):
    end_run(add_run(sweep_dir, "a", lr=0.01))
    (sweep_dir / "report").mkdir()
    (sweep_dir / "report" / "index.html").write_text("<p>")
    (sweep_dir / "trials.parquet").write_bytes(b"PAR1")
    sender = MLflowSender(sweep_dir)
    sender.start()
    for name in ("report", "trials.parquet", "missing.png"):
        sender.artifact(sweep_dir / name)
    assert sender.close(LONG_S) == ""
    client, top = store(sweep_dir), state_of(sweep_dir).parent_run_id
    assert {f.path for f in client.list_artifacts(top)} == {"report", "trials.parquet"}
    assert [f.path for f in client.list_artifacts(top, "report")] == ["report/index.html"]
    assert list((sweep_dir / "mlartifacts").glob(f"{top}/artifacts/*"))


def test_a_driver_killed_at_once_leaves_no_run_open(sweep_dir: Path):
    add_run(sweep_dir, "a", lr=0.01, rows=11)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tuner.mlflow_tracker import MLflowSender\n"
        "sender = MLflowSender(Path(sys.argv[1])); sender.start(); time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(sweep_dir)], cwd=ROOT)
    try:
        wait_for(lambda: (state := State.load(sweep_dir)) and "a" in state.runs)
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: state_of(sweep_dir).parent_status == "KILLED")
    assert children(store(sweep_dir), sweep_dir)["a"].info.status == "KILLED"


def test_sync_waits_for_nothing_where_nothing_waits_and_is_refused_beside_a_sweep(sweep_dir: Path):
    with pytest.raises(ValueError, match="DIR must hold a sweep"):
        sync(sweep_dir)
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    sender = MLflowSender(sweep_dir)
    sender.start()
    wait_for(lambda: state_of(sweep_dir).parent_run_id)
    with pytest.raises(ValueError, match="one sender at a time"):
        sync(sweep_dir)
    assert sender.close(LONG_S) == ""
    began = time.monotonic()
    assert sync(sweep_dir) == ""
    assert time.monotonic() - began < 0.5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(command: list[str], port: int, log: Path) -> Iterator[str]:
    """A server of MLflow's own, killed without warning at the end."""
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return urllib.request.urlopen(f"{url}/health", timeout=2).status == 200
        except OSError:
            return False

    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for(answers, 120.0)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_dies_and_comes_back_loses_nothing(sweep_dir: Path, tmp_path: Path):
    """About 25 s: MLflow's server starts twice."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "kept")]
    log, url = tmp_path / "server.log", f"http://127.0.0.1:{port}"
    first, second = (add_run(sweep_dir, name, lr=0.01, rows=35) for name in "ab")

    sender = MLflowSender(sweep_dir, tracking_uri=url, experiment="mine")
    with served(command, port, log):
        sender.start()
        sender.trial_started("a")
        sender.trial_started("b")
        wait_for(lambda: {"a", "b"} <= state_of(sweep_dir).runs.keys())
        wait_for(lambda: state_of(sweep_dir).runs["b"].step == 34)
        end_run(first)
        wait_for(lambda: state_of(sweep_dir).runs["a"].closed)
    write_rows(second, range(35, 101))
    end_run(second)
    sender.trial_ended("b")
    third = add_run(sweep_dir, "c", lr=0.01, rows=35)
    sender.trial_started("c")
    wait_for(lambda: state_of(sweep_dir).error)
    began = time.monotonic()
    message = sender.close(10.0)
    assert time.monotonic() - began < 8.0
    assert f"MLflow at {url} has not received 101 rows of 2 trials" in message
    assert f"`foretune sync {shlex.quote(str(sweep_dir))}`" in message
    assert "(connection refused)" in message
    assert "\n" not in message

    write_rows(third, range(35, 101))
    end_run(third)
    (sweep_dir / "trials.parquet").write_bytes(b"PAR1")
    sender.artifact(sweep_dir / "trials.parquet")
    with served(command, port, log):
        with pytest.raises(ValueError, match="tracking URI must stay"):
            sync(sweep_dir, "http://127.0.0.1:1")
        assert sync(sweep_dir) == ""
        client = MlflowClient(url)
        found = children(client, sweep_dir)
        assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(
            "abc", "FINISHED"
        )
        assert steps(client, found["a"]) == [0, 10, 20, 30]
        for name in "bc":
            assert steps(client, found[name]) == list(range(0, 101, 10))
        top = state_of(sweep_dir).parent_run_id
        assert client.get_run(top).info.status == "FINISHED"
        assert [f.path for f in client.list_artifacts(top)] == ["trials.parquet"]
        assert view_hint(sweep_dir).startswith(f"{url}/#/experiments/")


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The URL of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_costs_nothing(sweep_dir: Path, black_hole: str):
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=101))
    sender = MLflowSender(sweep_dir, tracking_uri=black_hole)
    sender.start()
    began = time.monotonic()
    sender.trial_started("a")
    sender.trial_ended("a")
    assert time.monotonic() - began < 0.005
    time.sleep(4.0)  # It hangs in its first request.
    began = time.monotonic()
    for _ in range(10_000):  # More than its pipe would hold.
        sender.trial_started("a")
    message = sender.close(2.0)
    assert time.monotonic() - began < 3.0
    assert "101 rows of 1 trials" in message
    assert "foretune sync" in message


def test_a_process_that_forgot_to_close_exits_at_once(sweep_dir: Path, black_hole: str):
    add_run(sweep_dir, "a", lr=0.01, rows=11)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tuner.mlflow_tracker import MLflowSender\n"
        "sender = MLflowSender(Path(sys.argv[1]), tracking_uri=sys.argv[2]); sender.start()\n"
        "time.sleep(3); assert 'mlflow' not in sys.modules; print(time.time())\n"
    )
    command = [sys.executable, "-c", code, str(sweep_dir), black_hole]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.time() - float(done.stdout) < 2.0


def test_the_hint_opens_the_sweep(sweep_dir: Path, tmp_path: Path):
    """About 10 s: MLflow's server starts."""
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    assert send_all(sweep_dir) == ""
    hint = view_hint(sweep_dir)
    assert f"--backend-store-uri 'sqlite:///{sweep_dir}/mlflow.db'" in hint
    port = free_port()
    command = shlex.split(hint.replace("--port 5000", f"--port {port}"))
    with served(command, port, tmp_path / "server.log") as url:
        assert b"<html" in urllib.request.urlopen(url, timeout=20).read()
        assert children(MlflowClient(url), sweep_dir).keys() == {"a"}


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "databricks",
        "databricks://me",
        "http://host:5000",
        "https://host",
        "sqlite:////x/m.db",
        "postgresql+psycopg2://u:p@h/db",
        "mysql+pymysql://u@h/db",
        "mssql+pyodbc://u@h/db",
    ],
)
def test_schemes_that_mlflow_has_a_store_for(uri: str):
    check_tracking_uri(uri)


@pytest.mark.parametrize(
    "uri", ["localhost:5000", "foo://x", "http://", "redis://u:secret@h", "uc:catalog", "s3://b"]
)
def test_an_unknown_scheme_is_refused_in_one_sentence(uri: str):
    with pytest.raises(ValueError, match=r"^tracking URI must begin with one of .*sqlite") as error:
        check_tracking_uri(uri)
    assert public(uri) in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_refused_unless_mlflow_is_told_to_take_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(ValueError, match="MLFLOW_ALLOW_FILE_STORE"):
        check_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_tracking_uri(uri)


def test_a_sweep_keeps_its_store_and_experiment(sweep_dir: Path, monkeypatch: pytest.MonkeyPatch):
    uri = "postgresql://me:secret@host/db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    MLflowSender(sweep_dir, tracking_uri=uri)
    assert State.load(sweep_dir) is None
    State(sweep_key="k", tracking_uri=public(uri), experiment="mine").save(sweep_dir)
    assert "secret" not in (sweep_dir / "mlflow.json").read_text()
    MLflowSender(sweep_dir, tracking_uri=uri, experiment="mine")
    with pytest.raises(ValueError, match="password isn't kept"):
        MLflowSender(sweep_dir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    MLflowSender(sweep_dir)
    with pytest.raises(ValueError, match="tracking URI must stay"):
        MLflowSender(sweep_dir, tracking_uri="http://elsewhere")
    with pytest.raises(ValueError, match="experiment must stay"):
        MLflowSender(sweep_dir, tracking_uri=uri, experiment="other")


def test_a_file_cut_in_place_or_replaced_is_read_again_and_known_steps_are_passed_over(
    tmp_path: Path,
):
    path, mark = tmp_path / "metrics.jsonl", Mark("m", 0)

    def read() -> list[int]:
        rows, (mark.offset, mark.inode, mark.step), more = read_rows(path, mark)
        assert not more
        return [int(row["step"]) for row in rows]

    assert read() == []
    write_rows(tmp_path, range(31))
    assert read() == [0, 10, 20, 30]
    write_rows(tmp_path, range(15), mode="w")
    assert read() == []
    write_rows(tmp_path, range(15, 61))
    assert read() == [40, 50, 60]
    path.unlink()
    write_rows(tmp_path, range(71))
    assert read() == [70]
    with path.open("ab") as file:
        file.write(b'{"step": 80, "loss": 1.0, "val_lo')
    assert read() == []
