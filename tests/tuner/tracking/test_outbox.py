"""What was interrupted, killed or not noted down: sent later, into the same runs, once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow_sweeps import (
    LONG_S,
    add_run,
    children,
    end_run,
    parent,
    row,
    send_all,
    sender_of,
    state_of,
    steps,
    store,
    wait_for,
    write_rows,
)

from foretune.tuner.tracking.outbox import Mark, State, read_rows
from foretune.tuner.tracking.sender import MLflowSender, sync

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
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

    sender = sender_of(sweep_dir)
    sender.start()
    sender.trial_started("b")
    wait_for(lambda: state_of(sweep_dir).runs["b"].status == "RUNNING")
    assert parent(client, sweep_dir).info.status == "RUNNING"
    # As tuner.records.files.MetricsFile does: cut back to the checkpoint, then repeat steps.
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
    assert send_all(sweep_dir, interrupted=True) == ""
    assert parent(store(sweep_dir), sweep_dir).info.status == "KILLED"


@pytest.mark.parametrize("interrupted_at", ["the rows", "its end"])
def test_what_a_killed_sender_did_not_note_down_is_found_in_the_store(
    sweep_dir: Path, interrupted_at: str
):
    """It notes down once a second: a run may have begun, and ended, unknown to mlflow.json."""
    folder = add_run(sweep_dir, "a", lr=0.01, rows=65)
    if interrupted_at == "its end":
        end_run(folder)
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    before = state_of(sweep_dir)
    if interrupted_at == "the rows":
        for run_id in (before.parent_run_id, before.runs["a"].mlflow_run_id):
            client.update_run(run_id, "RUNNING")
    State(sweep_key=before.sweep_key).save(sweep_dir)
    write_rows(folder, range(65, 101))
    end_run(folder)
    assert send_all(sweep_dir) == ""
    assert state_of(sweep_dir).parent_run_id == before.parent_run_id
    run = children(client, sweep_dir)["a"]
    assert run.info.run_id == before.runs["a"].mlflow_run_id
    assert (run.info.status, parent(client, sweep_dir).info.status) == ("FINISHED", "FINISHED")
    assert steps(client, run) == list(range(0, 101, 10))


def test_what_another_sender_writes_down_meanwhile_stays(sweep_dir: Path, monkeypatch):
    """A killed driver's is at work still when the sweep goes on."""
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    assert send_all(sweep_dir) == ""
    state = (sweep_dir / "mlflow.json").read_bytes()
    monkeypatch.setattr("foretune.tuner.tracking.sender.OTHER_SENDER_S", 0.0)
    load = State.load

    def load_what_is_changed_then(directory):
        loaded = load(directory)
        (sweep_dir / "mlflow.json").write_bytes(state.replace(b'"step": 10', b'"step": 9'))
        return loaded

    sender = MLflowSender(sweep_dir)
    with FileLock(sweep_dir / ".mlflow.lock"):
        monkeypatch.setattr(State, "load", staticmethod(load_what_is_changed_then))
        sender.prepare()
    assert load(sweep_dir).runs["a"].step == 9


@pytest.mark.slow
def test_a_driver_killed_at_once_leaves_no_run_open(sweep_dir: Path):
    add_run(sweep_dir, "a", lr=0.01, rows=11)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from foretune.tuner.tracking.sender import MLflowSender\n"
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


@pytest.mark.slow
def test_sync_waits_for_nothing_where_nothing_waits_and_is_refused_beside_a_sweep(
    sweep_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ValueError, match="DIR must hold a sweep"):
        sync(sweep_dir)
    end_run(add_run(sweep_dir, "a", lr=0.01, rows=11))
    sender = sender_of(sweep_dir)
    sender.start()
    wait_for(lambda: state_of(sweep_dir).parent_run_id)
    with pytest.raises(ValueError, match="one sender at a time"):
        sync(sweep_dir)
    assert sender.close(LONG_S) == ""
    monkeypatch.setattr(MLflowSender, "start", None)  # Nothing is started, so nothing waited for.
    assert sync(sweep_dir) == ""


def test_a_file_cut_in_place_or_replaced_is_read_again_and_known_steps_are_passed_over(
    tmp_path: Path,
):
    path, mark = tmp_path / "metrics.jsonl", Mark("m", 0)

    def read() -> list[int]:
        rows, (mark.offset, mark.inode, mark.step), more = read_rows(path, mark, ended=False)
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
