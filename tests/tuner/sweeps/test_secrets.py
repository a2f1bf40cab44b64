"""A password in a URI, in the environment and in a user's config: in no file, tag, page or log."""

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from commands import call
from mlflow_sweeps import children, parent, send_all, store
from process_tree import below
from processes import short, start
from short_runs import small
from torch import nn

from foretune.tuner.config import kept_secrets
from foretune.tuner.config.kept_secrets import keep_secrets, without_secrets
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.journal import describe_all, read_runs, write_down
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import RunRecord, run_id, to_config
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.training.train import Training

URI_SECRET, VARIABLE_SECRET, OWN_SECRET = "0f3cr3t-uri", "0f3cr3t-variable", "0f3cr3t-own"
SECRET = b"0f3cr3t"
MODULE = f"""
import sys
from dataclasses import dataclass

from torch import nn

from foretune import Run

@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    api_key: str = ""
    width: int = 8

    def build(self):
        assert self.api_key == {OWN_SECRET!r}, "not the key that was given"
        refuse = Refuse(f"refused: {{self.api_key}}" if self.width == 12 else "")
        return nn.Sequential(nn.Embedding(256, self.width), refuse, nn.Linear(self.width, 256))

class Refuse(nn.Module):
    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def forward(self, x):
        if self.reason:
            raise RuntimeError(self.reason)
        return x

RUN = Run(model=Mine(api_key={OWN_SECRET!r}))
"""


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """A user's own model, which asks for a key."""

    api_key: str
    width: int = 8

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(256, self.width), nn.Linear(self.width, 256))


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_secrets, "_kept", {})


@pytest.fixture
def keyed(text: Path):
    return replace(small(text), model=Keyed(api_key=OWN_SECRET))


def holding(folder: Path) -> list[Path]:
    """The files of a folder that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [path for path in files if SECRET in path.read_bytes()]


def test_a_secret_of_a_config_is_in_no_record_and_comes_back_from_memory(keyed, tmp_path):
    other = replace(keyed, model=Keyed(api_key="another"))
    assert run_id(keyed) == run_id(other)
    assert to_config(keyed)["model"]["api_key"] == "***"
    plan = Plan({"model": Keyed(api_key=OWN_SECRET)}, preset=keyed, overrides={"steps": 8})
    (record,) = describe_all([keyed])
    sweep = SweepRecord(
        plan=plan.describe(), execution={}, versions={}, machine={}, trials=1, command="x"
    )
    write_down(tmp_path / "sweep", [record], sweep)
    training = Training(keyed, lambda step, row: None, device="cpu")
    training.advance()
    run_dir = tmp_path / "sweep" / "runs" / record.run_id
    training.save(run_dir / "checkpoint")
    assert holding(tmp_path) == []

    with pytest.raises(
        ValueError, match=r"^model.api_key must be given again, .*--preset"
    ) as error:
        read_runs(tmp_path / "sweep")
    assert "\n" not in str(error.value)
    assert RunRecord.read(run_dir).run.model.api_key == "***"  # For who only reads.
    keep_secrets(keyed)
    assert read_runs(tmp_path / "sweep") == ([record], [])
    assert RunRecord.read(run_dir).run == keyed
    Training(keyed, lambda step, row: None, device="cpu", restore=run_dir / "checkpoint")


def test_a_run_that_was_written_down_with_its_secret_goes_on(keyed, tmp_path, monkeypatch):
    """By an earlier version: in run.json, in its own name and in its checkpoint."""
    with monkeypatch.context() as before:
        before.setattr("foretune.tuner.records.run_json.shown", lambda name, value: value)
        before.setattr("foretune.tuner.training.state.without_secrets", repr)
        (record,) = describe_all([keyed])
        sweep = SweepRecord(plan={}, execution={}, versions={}, machine={}, trials=1)
        write_down(tmp_path, [record], sweep)
        training = Training(keyed, lambda step, row: None, device="cpu")
        training.advance()
        training.save(tmp_path / "runs" / record.run_id / "checkpoint")
    assert record.run_id != run_id(keyed)
    ((read,), _) = read_runs(tmp_path)
    assert read.run == keyed
    restore = tmp_path / "runs" / read.run_id / "checkpoint"
    Training(read.run, lambda step, row: None, device="cpu", restore=restore)


def test_two_values_of_one_secret_are_refused_and_a_default_comes_back(keyed):
    with pytest.raises(ValueError, match=r"^model.api_key must have one value"):
        keep_secrets(keyed, replace(keyed, model=Keyed(api_key="another", width=16)))
    assert without_secrets(small(Path("x"))) == repr(small(Path("x")))
    assert OWN_SECRET not in without_secrets(keyed)


def test_what_an_earlier_version_wrote_down_is_sent_and_shown_without_secrets(
    sweep_dir: Path, capsys, keyed, monkeypatch
):
    facts = json.loads((sweep_dir / "sweep.json").read_text())
    facts["command"] = f"foretune sweep lr --tracking-uri http://me:{URI_SECRET}@host:5000"
    facts["space"] = [{"model.api_key": [OWN_SECRET]}]
    facts["overrides"] = {"model.hub_token": OWN_SECRET}
    (sweep_dir / "sweep.json").write_text(json.dumps({**facts, "format": 1}))
    with monkeypatch.context() as before:
        before.setattr("foretune.tuner.records.run_json.shown", lambda name, value: value)
        (record,) = describe_all([keyed])
        record.write(sweep_dir / "runs" / record.run_id)
    training = Training(keyed, lambda step, row: None, device="cpu")
    while training.outcome is None:
        training.advance()
    RunEnd.of(record.run_id, training.outcome).write(sweep_dir / "runs" / record.run_id)
    code, out, err = call(capsys, f"report '{sweep_dir}'")
    assert (code, err) == (0, "")
    assert "http://me:***@host:5000" in (sweep_dir / "report" / "index.html").read_text()
    assert send_all(sweep_dir) == ""
    client = store(sweep_dir)
    runs = [parent(client, sweep_dir), *children(client, sweep_dir).values()]
    assert SECRET.decode() not in str([run.to_dictionary() for run in runs]) + out
    there = {path.name for path in holding(sweep_dir)}
    assert there == {"sweep.json", "run.json"}  # As they were, and nothing that was made of them.


def test_errors_are_printed_without_what_the_command_holds(capsys, tmp_path):
    code, _, err = call(
        capsys, f"sweep lr --out '{tmp_path}/s' --tracking-uri foo://u:{URI_SECRET}@h"
    )
    assert code == 2
    assert "foo://u:***@h" in err
    line = f"train lm-tiny --out '{tmp_path}/t' --set model.api_key={OWN_SECRET}"
    code, _, err = call(capsys, line)
    assert code == 2
    assert SECRET.decode() not in err


@contextmanager
def watched(pid: int, *folders: Path) -> Iterator[dict[str, bool]]:
    """{name: whether it ever held a secret} of the command lines of all that a process starts, and
    of the files of folders that are gone with it, read again and again."""
    seen: dict[str, bool] = {}
    over = threading.Event()
    typed = Path(f"/proc/{pid}/cmdline").read_bytes()  # A fork has it, too, until it runs its own.

    def read() -> None:
        while not over.is_set():
            commands = [Path(f"/proc/{one}/cmdline") for one in below(pid)]
            # By os.walk, which passes over a folder that goes away meanwhile.
            parts = [part for folder in folders for part in os.walk(folder)]
            files = [Path(base) / name for base, _, names in parts for name in names]
            for path in (*commands, *filter(Path.is_file, files)):
                with suppress(OSError):
                    content = path.read_bytes()
                    if content == typed:
                        continue
                    name = content.decode(errors="replace") if path in commands else str(path)
                    seen[name] = seen.get(name, False) or SECRET in content
            time.sleep(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("search", ["grid", "optuna"])
def test_a_sweep_leaves_no_secret_anywhere(text, tmp_path, free_port, monkeypatch, search):
    """Nobody listens at the server's port. One model of two fails with its key in the error."""
    (tmp_path / "mine.py").write_text(MODULE)
    out, log = tmp_path / "sweep", tmp_path / "output.txt"
    ray = tempfile.TemporaryDirectory(prefix="r")  # Short, since sockets' paths must be.
    monkeypatch.setenv("RAY_TMPDIR", ray.name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", VARIABLE_SECRET)
    monkeypatch.setenv("HF_TOKEN", VARIABLE_SECRET)
    uri = f"http://me:{URI_SECRET}@127.0.0.1:{free_port}"
    named = ["--tracking-uri", uri]
    if search == "optuna":  # Not typed, then.
        named = []
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "night")
    with ray:
        process = start(
            "sweep", "lr", "--out", str(out), "--preset", "mine.py:RUN", "--drop", "model.size",
            "model.qk_norm", "--grid", "model.width=8,12", "optimizer.lr=0.01,0.02",
            *named,
            "--search", search, "--num-samples", "4" if search == "optuna" else "1",
            *short(text, 20), cwd=tmp_path,
        )  # fmt: skip
        with watched(process.pid, out / ".ray", Path(ray.name)) as seen:
            printed, _ = process.communicate()
        log.write_text(printed)
        assert process.returncode == 3, printed
        assert re.search(r"4 trials: 2 failed, 2 finished", printed)
        assert [name for name, held in seen.items() if held] == []
        for what in ("tuner.tracking.process", "/.ray/", f"{ray.name}/", "/logs/"):
            assert any(what in name for name in seen), what
    assert "refused: ***" in "".join(p.read_text() for p in out.glob("runs/*/error.txt"))
    report = start("report", str(out), cwd=tmp_path)
    printed, _ = report.communicate()
    log.write_text(log.read_text() + printed)
    assert holding(out) == []
    there = [path for path in holding(tmp_path) if path.parent.name != "__pycache__"]
    assert there == [tmp_path / "mine.py"]
    for state in (
        json.loads((out / "mlflow.json").read_text()),
        json.loads((out / "sweep.json").read_text())["execution"],
    ):
        assert state["tracking_uri"] == f"http://me:***@127.0.0.1:{free_port}"
        assert state["experiment"] == ("night" if search == "optuna" else "foretune")
