"""Nothing in a directory chooses where its data go, nor what beside it is sent."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commands import call
from mlflow_sweeps import add_run, end_run, send_all, sender_of, state_of, store
from synthetic import write_sweep

from foretune.tuner.planning.execution import Execution
from foretune.tuner.sweeps.sweep import resume
from foretune.tuner.tracking.destinations import known_destination
from foretune.tuner.tracking.outbox import State
from foretune.tuner.tracking.sender import sync
from foretune.tuner.tracking.stores import agreed_uri

SERVER = "http://127.0.0.1:9"
"""Where nobody listens."""


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def received(sweep_dir: Path) -> Path:
    """A sweep from somebody else, which names a server."""
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    State(sweep_key="k", tracking_uri=SERVER).save(sweep_dir)
    facts = json.loads((sweep_dir / "sweep.json").read_text())
    facts |= {"versions": {}, "machine": {}, "trials": 1}
    (sweep_dir / "sweep.json").write_text(json.dumps(facts))
    return sweep_dir


def test_a_store_that_a_directory_alone_names_gets_nothing(received: Path, capsys):
    code, out, err = call(capsys, f"sync '{received}'")
    assert (code, out) == (2, "")
    assert err.startswith("foretune: tracking URI must be given where the directory alone says")
    assert err.endswith(f"give it: --tracking-uri {SERVER}.\n")
    assert err.count("\n") == 1
    assert not (received / "mlflow.log").exists()  # Nothing was started that could send.
    with pytest.raises(ValueError, match="the directory alone says"):
        resume(received, execution=Execution())


def test_a_report_of_it_is_written_and_nothing_sent(tmp_path: Path, capsys):
    root = write_sweep(tmp_path / "s", widths=(16, 32), qk_norms=(False,))
    State(sweep_key="k", tracking_uri=SERVER).save(root)
    code, out, err = call(capsys, f"report '{root}'")
    assert code == 0
    assert f"report: {root / 'report' / 'index.html'}" in out
    assert err.startswith("MLflow: tracking URI must be given where the directory alone says")
    assert not (root / "mlflow.log").exists()


def test_a_store_that_is_named_once_is_known_from_then_on(received: Path, capsys, monkeypatch):
    code, _, err = call(capsys, f"sync '{received}' --tracking-uri {SERVER}")
    assert (code, err) == (3, "")  # Nobody is there, which isn't the directory's fault.
    assert known_destination("k") == SERVER
    assert agreed_uri(received, "") == (SERVER, False)
    State(sweep_key="k", tracking_uri="http://elsewhere").save(received)
    with pytest.raises(ValueError, match="the directory alone says"):
        agreed_uri(received, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert agreed_uri(received, "") == ("http://elsewhere", True)


def test_a_store_in_sweep_json_alone_is_no_better(received: Path):
    (received / "mlflow.json").unlink()
    facts = json.loads((received / "sweep.json").read_text())
    facts["execution"] = {"tracking_uri": SERVER}
    (received / "sweep.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="the directory alone says"):
        sync(received)
    assert agreed_uri(received, SERVER) == (SERVER, True)


@pytest.mark.parametrize("content", ["[]", "{", '{"k": 3}', "\x00\xff"])
def test_a_damaged_file_of_destinations_knows_none(content: str, tmp_path: Path):
    path = tmp_path / "state" / "foretune" / "destinations.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert known_destination("k") == ""


def test_a_home_that_cannot_be_written_stops_nothing(received: Path, monkeypatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    sender = sender_of(received, tracking_uri=SERVER)
    sender.prepare()
    assert known_destination("k") == ""


def test_artifacts_that_lead_outside_are_refused_and_the_rest_is_sent(
    sweep_dir: Path, tmp_path: Path
):
    end_run(add_run(sweep_dir, "a", lr=0.01))
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("private")
    report = sweep_dir / "report"
    (report / "sub").mkdir(parents=True)
    (report / "index.html").write_text("<p>")
    (report / "sub" / "table.csv").write_text("1")
    (report / "key.txt").symlink_to(tmp_path / "private" / "key.txt")
    (report / "all").symlink_to(tmp_path / "private")
    (sweep_dir / "link").symlink_to(tmp_path / "private")
    (sweep_dir / "trials.parquet").write_bytes(b"PAR1")
    names = [str(tmp_path / "private" / "key.txt"), "../private", "report", "link"]
    names += [str(tmp_path / "nothing"), "trials.parquet"]
    lines = [json.dumps(name) for name in names]
    lines[2:2] = ["garbage", "3", "[]", '"a\\u0000b"', ""]
    (sweep_dir / "mlflow-artifacts.jsonl").write_text("\n".join(lines) + "\n")
    message = send_all(sweep_dir)
    for path in ("private/key.txt", "../private", "report/key.txt", "link"):
        assert path in message
    assert message.count("artifacts must be inside the sweep's directory") == 4
    assert "\n" not in message
    top = state_of(sweep_dir).parent_run_id
    kept = sweep_dir / "mlartifacts" / top / "artifacts"
    files = {str(p.relative_to(kept)) for p in kept.rglob("*") if p.is_file()}
    assert files == {"report/index.html", "report/sub/table.csv", "trials.parquet"}
    assert message == sync(sweep_dir)  # It says so again, and sends nothing.


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_a_copy_sends_into_itself_and_not_into_the_original(sweep_dir: Path, tmp_path: Path):
    folder = add_run(sweep_dir, "a", lr=0.01, rows=11)
    (sweep_dir / "trials.parquet").write_bytes(b"old")
    sender_of(sweep_dir).artifact(sweep_dir / "trials.parquet")
    assert send_all(sweep_dir) == ""
    before = contents(sweep_dir)
    copy = tmp_path / "a copy"
    shutil.copytree(sweep_dir, copy)
    (copy / "trials.parquet").write_bytes(b"new")
    sender_of(copy).artifact(copy / "trials.parquet")
    end_run(copy / "runs" / folder.name)
    assert sync(copy) == ""  # In a process of its own: MLflow remembers where runs are.
    assert contents(sweep_dir) == before
    kept = copy / "mlartifacts" / state_of(copy).parent_run_id / "artifacts" / "trials.parquet"
    assert kept.read_bytes() == b"new"
    run = store(copy).get_run(state_of(copy).runs["a"].mlflow_run_id)
    assert run.info.artifact_uri.startswith(f"{(copy / 'mlartifacts').as_uri()}/")
    os.rename(copy, tmp_path / "moved")
    assert sync(tmp_path / "moved", artifacts=[tmp_path / "moved" / "trials.parquet"]) == ""
    assert not copy.exists()


@pytest.mark.slow
def test_a_database_from_elsewhere_says_not_where_files_are_put(sweep_dir: Path, tmp_path: Path):
    end_run(add_run(sweep_dir, "a", lr=0.01))
    assert send_all(sweep_dir) == ""
    state = state_of(sweep_dir)
    elsewhere = tmp_path / "elsewhere"
    with closing(sqlite3.connect(sweep_dir / "mlflow.db")) as database, database:
        for change in (
            "UPDATE runs SET artifact_uri = ?",
            "UPDATE experiments SET artifact_location = ?, name = name || ' of mine'",
        ):
            database.execute(change, (elsewhere.as_uri(),))
        database.execute("DELETE FROM tags WHERE key = 'foretune.sweep'")
    (sweep_dir / "trials.parquet").write_bytes(b"PAR1")
    assert sync(sweep_dir, artifacts=[sweep_dir / "trials.parquet"]) == ""
    assert not elsewhere.exists()
    kept = sweep_dir / "mlartifacts" / state.parent_run_id / "artifacts" / "trials.parquet"
    assert kept.exists()


def test_a_copy_of_a_sweep_on_a_server_is_refused_and_a_moved_one_goes_on(
    received: Path, tmp_path: Path
):
    sender_of(received, tracking_uri=SERVER).prepare()
    copy = tmp_path / "a copy"
    shutil.copytree(received, copy)
    for asked in ("", SERVER):
        with pytest.raises(ValueError, match=r"a copy of .*remove .*mlflow\.json"):
            sync(copy, asked)
    shutil.rmtree(received)
    assert agreed_uri(copy, "") == (SERVER, False)
    shutil.copytree(copy, received)
    (copy / "mlflow.json").unlink()
    assert agreed_uri(copy, SERVER) == (SERVER, True)
