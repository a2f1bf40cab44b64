"""What was sent is a function of what the files hold: the step of an interruption isn't lost."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow_sweeps import (
    add_run,
    children,
    differing,
    end_run,
    row,
    send_all,
    state_of,
    steps,
    store,
    write_rows,
)
from processes import finish, interrupt, short, start, unfinished_with_checkpoint, wait_for

from foretune.tuner.tracking.outbox import waiting
from foretune.tuner.tracking.sender import sync


def write_half(folder: Path, step: int) -> None:
    """What an interruption leaves of a step: its validation, without the update."""
    half = {key: row(step)[key] for key in ("step", "val_loss", "tokens_seen")}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**half, "seconds": 77.0}) + "\n")


def resume_from(folder: Path, step: int, *, until: int = 101) -> None:
    """As MetricsFile does: cut back to the checkpoint, in a new file, then on, by another clock."""
    path = folder / "metrics.jsonl"
    partial = path.with_suffix(".partial")
    later = [row(s) | {"seconds": 100.0 + s} for s in range(step, until)]
    rows = [row(s) for s in range(step)] + later
    partial.write_text("".join(json.dumps(r) + "\n" for r in rows))
    partial.replace(path)


def check_complete(sweep_dir: Path, names: str) -> None:
    client = store(sweep_dir)
    found = children(client, sweep_dir)
    for name in names:
        assert differing(client, found[name], sweep_dir / "runs" / name) == []


def test_half_a_row_waits_for_the_rest_of_it(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01, rows=50)
    write_half(folder, 50)
    assert send_all(sweep_dir) == ""  # An interruption isn't said to leave something behind.
    assert waiting(sweep_dir, state_of(sweep_dir)) == (0, 0)
    resume_from(folder, 50)
    end_run(folder)
    assert send_all(sweep_dir) == ""
    check_complete(sweep_dir, "a")


def test_the_last_row_of_a_run_that_has_ended_is_sent_though_it_has_no_loss(sweep_dir: Path):
    """The final validation, and what diverged."""
    for name, outcome in (("a", "finished"), ("b", "diverged")):
        write_half(add_run(sweep_dir, name, lr=0.01, rows=100), 100)
        end_run(sweep_dir / "runs" / name, outcome)
    assert send_all(sweep_dir) == ""
    check_complete(sweep_dir, "ab")


@pytest.mark.parametrize("closed", [True, False])
def test_what_an_earlier_version_left_out_is_sent_once(sweep_dir: Path, closed: bool):
    """It had sent half of step 50 and took the step for sent."""
    folders = [add_run(sweep_dir, name, lr=0.01, rows=50) for name in "ab"]
    for folder in folders:
        write_half(folder, 50)
        end_run(folder)
    assert send_all(sweep_dir) == ""
    state = state_of(sweep_dir)
    for folder in folders:
        resume_from(folder, 50)
    if not closed:
        (folders[0] / "outcome.json").unlink()
    state.runs["a"] = replace(state.runs["a"], step=50, closed=closed)
    replace(state, format=1).save(sweep_dir)
    assert send_all(sweep_dir) == ""
    end_run(folders[0])
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    for name in "ab":
        # The clock's reading of the half row stays.
        run = children(client, sweep_dir)[name]
        assert differing(client, run, sweep_dir / "runs" / name, clock=False) == []
    assert state_of(sweep_dir).format == 2


def test_a_line_without_an_end_and_longer_than_a_reading_stops_nothing(sweep_dir: Path):
    folder = add_run(sweep_dir, "a", lr=0.01, rows=11)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"x" * (3 << 20) + b"\n")
    write_rows(folder, range(11, 31))
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b"x" * (2 << 20))
    end_run(folder)
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    assert steps(client, children(client, sweep_dir)["a"]) == [0, 10, 20, 30]


def test_a_damaged_run_holds_up_no_other(sweep_dir: Path):
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"config": 3}'), ("d", None)):
        folder = add_run(sweep_dir, name, lr=0.01, rows=11)
        end_run(folder)
        if content is not None:
            (folder / "run.json").write_text(content)
    (add_run(sweep_dir, "e", lr=0.01, rows=11) / "outcome.json").write_text('{"outcome": "lost"}')
    message = send_all(sweep_dir)
    for name in "abce":
        assert f"run {name}: " in message
    assert children(store(sweep_dir), sweep_dir).keys() == {"d"}


@pytest.mark.slow
def test_a_sweep_interrupted_in_training_arrives_whole(text: Path, tmp_path: Path):
    """Twice, with several trials at once, of which two diverge."""
    out = tmp_path / "sweep"
    process = start(
        "sweep", "lr", "--out", "sweep", "--sizes", "16", "--checkpoint-seconds", "0",
        "--grid", "optimizer.lr=1e-2,3e-2,1e30", *short(text, 400), "telemetry_every=5",
        cwd=tmp_path,
    )  # fmt: skip
    for _ in range(2):
        before = set(out.glob("runs/*/checkpoint/state.pt"))
        wait_for(
            lambda before=before: (
                unfinished_with_checkpoint(out)
                and set(out.glob("runs/*/checkpoint/state.pt")) != before
            ),
            process,
        )
        interrupt(process, signal.SIGINT)
        halves = [path for path in out.glob("runs/*/metrics.jsonl") if is_half(path)]
        assert halves
        process = start("resume", "sweep", cwd=tmp_path)
    finish(process)
    assert sync(out) == ""
    client = store(out)
    found = children(client, out)
    assert len(found) == 6
    assert sum(run.data.metrics["diverged"] for run in found.values()) == 2
    for name, run in found.items():
        assert differing(client, run, out / "runs" / name, clock=False) == []


def is_half(path: Path) -> bool:
    rows = path.read_text().splitlines()
    return bool(rows) and "loss" not in json.loads(rows[-1])
