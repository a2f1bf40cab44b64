"""A damaged mlflow.db or mlflow.json is put aside in one sentence, and everything arrives."""

import json
import random
from pathlib import Path

import pytest
from commands import call
from mlflow_sweeps import (
    add_run,
    children,
    differing,
    end_run,
    parent,
    send_all,
    sender_of,
    state_of,
    store,
    write_rows,
)

from foretune.tuner.tracking.outbox import DamagedState, State
from foretune.tuner.tracking.sender import sync, view_hint


@pytest.fixture
def sent(sweep_dir: Path, tmp_path: Path) -> Path:
    """A sweep that is in its own store, but for the end of a run.

    It has moved since: this process's MLflow holds the database open where it was.
    """
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=101))
    add_run(sweep_dir, "b", lr=0.03, rows=65)
    assert send_all(sweep_dir) == ""
    write_rows(sweep_dir / "runs" / "b", range(65, 101))
    end_run(sweep_dir / "runs" / "b")
    return sweep_dir.rename(tmp_path / "moved")


def check_whole(sweep_dir: Path) -> None:
    client = store(sweep_dir)
    assert parent(client, sweep_dir).info.status == "FINISHED"
    found = children(client, sweep_dir)
    assert found.keys() == {"a", "b"}
    for name, run in found.items():
        assert run.info.status == "FINISHED"
        assert differing(client, run, sweep_dir / "runs" / name) == []


def noise(data: bytes) -> bytes:
    return random.Random(0).randbytes(len(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"not a database" * 100,
        lambda data: data[: len(data) // 2],
        lambda data: data[:200],
        lambda data: data[:4096] + noise(data[4096:]),
        noise,
    ],
    ids=["text", "half", "head", "pages", "noise"],
)
def test_a_damaged_database_is_kept_aside_and_everything_sent_again(sent: Path, capsys, damage):
    path, key = sent / "mlflow.db", state_of(sent).sweep_key
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    assert send_all(sent) == ""
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("MLflow: ")]
    assert len(said) == 1
    assert "is kept as mlflow.db.damaged-1; the whole sweep is sent again." in said[0]
    assert (sent / "mlflow.db.damaged-1").read_bytes() == damaged
    assert state_of(sent).sweep_key != key
    check_whole(sent)


@pytest.mark.parametrize("content", [None, b""])
def test_a_database_that_is_gone_is_made_again(sent: Path, capsys, content: bytes | None):
    (sent / "mlflow.db").unlink()
    if content is not None:
        (sent / "mlflow.db").write_bytes(content)
    assert send_all(sent) == ""
    assert "has not what was sent to it; the whole sweep is sent again." in capsys.readouterr().err
    check_whole(sent)


@pytest.mark.slow
def test_a_second_damage_gets_a_name_of_its_own_though_nothing_waits(sent: Path, capsys):
    for number in (1, 2):
        (sent / "mlflow.db").write_bytes(b"damaged" * number)
        code, out, _ = call(capsys, f"sync '{sent}'")
        assert (code, out) == (0, f"MLflow has everything of {sent}\n")
        assert (sent / f"mlflow.db.damaged-{number}").read_bytes() == b"damaged" * number
    check_whole(sent)


DAMAGED_STATES = [
    "[]",
    "{",
    "",
    "null",
    "3",
    "\x00\x01",
    '{"sweep_key": 3}',
    '{"experiment": "foretune"}',
    '{"sweep_key": "k", "runs": []}',
    '{"sweep_key": "k", "runs": {"a": {"mlflow_run_id": "m"}}}',
    '{"sweep_key": "k", "runs": {"a": {"mlflow_run_id": [], "start_ms": 0}}}',
    '{"sweep_key": "k", "artifacts_sent": "many"}',
    "[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGED_STATES)
def test_a_damaged_state_is_read_from_the_database_again(sent: Path, capsys, content: str):
    before = state_of(sent)
    (sent / "mlflow.json").write_text(content)
    with pytest.raises(DamagedState, match="must be what the sender wrote"):
        State.load(sent)
    assert view_hint(sent)
    assert send_all(sent) == ""
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("MLflow: ")]
    assert len(said) == 1
    assert "is kept as mlflow.json.damaged-1, and what was sent is read from mlflow.db." in said[0]
    after = state_of(sent)
    assert (after.sweep_key, after.parent_run_id) == (before.sweep_key, before.parent_run_id)
    assert after.runs["a"].mlflow_run_id == before.runs["a"].mlflow_run_id
    check_whole(sent)


def test_both_damaged_send_it_all_again(sent: Path, capsys):
    (sent / "mlflow.json").write_text("{")
    (sent / "mlflow.db").write_bytes(b"damaged")
    assert send_all(sent) == ""
    assert "damaged" in capsys.readouterr().err
    check_whole(sent)


def test_what_another_version_knows_is_passed_over(sent: Path):
    facts = json.loads((sent / "mlflow.json").read_text())
    facts["later"] = {"x": 1}
    facts["runs"]["a"]["later"] = 3
    del facts["error"]
    (sent / "mlflow.json").write_text(json.dumps(facts))
    assert send_all(sent) == ""
    check_whole(sent)


def test_a_damaged_state_of_a_server_is_one_sentence(sent: Path, capsys):
    facts = json.loads((sent / "sweep.json").read_text())
    facts["execution"]["tracking_uri"] = "http://me:***@host"
    (sent / "sweep.json").write_text(json.dumps(facts))
    (sent / "mlflow.json").write_text("[1]")
    for line in (f"sync '{sent}'", f"sync '{sent}' --tracking-uri http://me:pw@host"):
        code, out, err = call(capsys, line)
        assert (code, out) == (2, "")
        assert "it alone says what http://me:***@host has of the sweep" in err
        assert err.count("\n") == 1
    assert (sent / "mlflow.json").read_text() == "[1]"


def test_no_byte_of_the_state_makes_a_traceback(sent: Path):
    """Each sixth of its bytes, flipped: read, or refused as damaged."""
    path = sent / "mlflow.json"
    data = path.read_bytes()
    for place in range(0, len(data), 6):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            state = State.load(sent)
        except DamagedState:
            continue
        assert state is not None


def test_garbage_among_the_artifacts_stops_none(sent: Path):
    (sent / "trials.parquet").write_bytes(b"PAR1")
    sender_of(sent).artifact(sent / "trials.parquet")
    with (sent / "mlflow-artifacts.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"a": 1}\n"torn')
    assert send_all(sent) == ""
    (artifact,) = store(sent).list_artifacts(state_of(sent).parent_run_id)
    assert artifact.path == "trials.parquet"
    assert sync(sent) == ""
