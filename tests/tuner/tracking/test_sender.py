"""What of a sweep arrives in MLflow, in real stores (sqlite)."""

import json
import math
from pathlib import Path

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


def test_a_sweep_arrives_with_its_trials_as_children(new_dir: Path):
    outcomes = {"a": "finished", "b": "diverged", "c": "stopped", "d": "failed"}
    for number, (name, outcome) in enumerate(outcomes.items()):
        end_run(add_run(new_dir, name, lr=0.01 * (number + 1), rows=101), outcome)
    assert send_all(new_dir) == ""

    client = store(new_dir)
    top = parent(client, new_dir)
    assert top.info.status == "FINISHED"
    assert top.info.run_name == "my sweep"
    assert (
        top.data.tags["foretune.command"] == "foretune sweep lr --set model.api_key=*** --out here"
    )
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
    sender = sender_of(sweep_dir)
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
    for name in ("report", "trials.parquet", "missing.png"):
        sender_of(sweep_dir).artifact(sweep_dir / name)
    assert send_all(sweep_dir) == ""
    client, top = store(sweep_dir), state_of(sweep_dir).parent_run_id
    assert {f.path for f in client.list_artifacts(top)} == {"report", "trials.parquet"}
    assert [f.path for f in client.list_artifacts(top, "report")] == ["report/index.html"]
    assert list((sweep_dir / "mlartifacts").glob(f"{top}/artifacts/*"))
