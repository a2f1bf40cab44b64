"""Whole sweeps on Ray: complete records, the same bits everywhere, divergence as an outcome."""

import json
import math
import os
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from clusters import Nodes
from ray import tune

from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.run_json import run_id
from foretune.tuner.sweeps.sweep import sweep
from foretune.tuner.tracking.sender import sync
from foretune.tuner.training.train import train

SPACE = [
    {"optimizer.lr": rate, "model.qk_norm": cured, "model.size": 16}
    for rate, cured in ((1e-2, False), (3e-2, True))
]
OUTCOMES = {"finished", "diverged", "stopped", "failed"}
NAN_MODEL = '''
"""A user's model: a transformer whose seventh training forward is NaN."""
from dataclasses import dataclass
from torch import nn
from foretune.models import TransformerConfig


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.forwards = TransformerConfig(width=16, depth=1).build(), 0

    def forward(self, tokens):
        self.forwards += self.training
        logits = self.inner(tokens)
        return logits * float("nan") if self.training and self.forwards == 7 else logits


@dataclass(frozen=True)
class NanAtSeven:
    def build(self):
        return Module()
'''
NAN_PRESET = """
from nan_model_for_test_sweep import NanAtSeven
from foretune.tuner.config.run import Run, Schedule
from foretune.tuner.data.tokens import Data

RUN = Run(
    steps=20, eval_every=5, telemetry_every=5, model=NanAtSeven(),
    schedule=Schedule(warmup_steps=1), data=Data(name="text", path={text!r}),
)
"""


@pytest.fixture(scope="module", autouse=True)
def _alone():
    """One thread, and a cluster named in the environment, which a sweep of its own doesn't join."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", "rubbish:1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def overrides():
    # A fixed file: run ids, and with them the order of trials, are the same every time.
    return {"steps": 20, "data.name": "text", "data.path": os.__file__}


@pytest.fixture(scope="module")
def handlers():
    """What handles the signals before the first sweep here: Ctrl-C as Python does.

    A test that runs Tune itself leaves Tune's handler.
    """
    # Not SIGTERM: ray.init puts a handler of its own there, which ends the process.
    numbers = (signal.SIGINT, signal.SIGUSR1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return {number: signal.getsignal(number) for number in numbers}


@pytest.fixture(scope="module")
def local(tmp_path_factory, overrides, handlers):
    return sweep(SPACE, out=tmp_path_factory.mktemp("local") / "sweep", overrides=overrides)


def rows(directory):
    """Rows of every run, by run id, but for the seconds, which are the clock's."""
    found = {}
    for path in sorted(Path(directory).glob("runs/*/metrics.jsonl")):
        found[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()]
        for row in found[path.parent.name]:
            del row["seconds"]
    return found


def outcomes(directory):
    paths = sorted(Path(directory).glob("runs/*/outcome.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def mlflow_statuses(directory):
    """Statuses of the parent's and the children's runs in the sweep's own MLflow store."""
    query = (
        "select r.status, exists(select 1 from tags t where t.run_uuid = r.run_uuid "
        "and t.key = 'mlflow.parentRunId') from runs r"
    )
    with sqlite3.connect(f"file:{Path(directory) / 'mlflow.db'}?mode=ro", uri=True) as database:
        found = database.execute(query).fetchall()
    database.close()
    return Counter(s for s, child in found if not child), Counter(s for s, child in found if child)


@pytest.mark.slow
def test_a_sweep_finishes_with_complete_records(local, overrides):
    assert local.exit_code == 0
    assert dict(local.outcomes) == {"finished": 2}
    planned = {run_id(run) for run in Plan(SPACE, overrides=overrides).runs()}
    for name in planned:
        run_dir = local.directory / "runs" / name
        assert json.loads((run_dir / "run.json").read_text())["run_id"] == name
        outcome = json.loads((run_dir / "outcome.json").read_text())
        assert (outcome["outcome"], outcome["step"], outcome["run_id"]) == ("finished", 20, name)
        assert outcome["opened"] <= outcome["started"] <= outcome["ended"]
        assert [row["step"] for row in rows(local.directory)[name]] == list(range(21))
        assert not (run_dir / "error.txt").exists()
    assert {p.name for p in (local.directory / "runs").iterdir()} == planned
    assert not (local.directory / ".ray").exists()
    assert not list(local.directory.rglob("*.partial"))


@pytest.mark.slow
def test_tables_hold_every_run_and_every_row(local):
    trials = pd.read_parquet(local.directory / "trials.parquet")
    telemetry = pd.read_parquet(local.directory / "telemetry.parquet")
    assert set(trials["run_id"]) == set(rows(local.directory))
    assert len(telemetry) == 2 * 21


@pytest.mark.slow
def test_mlflow_has_a_parent_and_a_child_for_every_trial(local):
    assert sync(local.directory) == ""  # What a busy machine left over, or nothing.
    parents, children = mlflow_statuses(local.directory)
    assert parents == {"FINISHED": 1}
    assert children == {"FINISHED": 2}


@pytest.mark.slow
def test_ctrl_c_after_a_sweep_is_pythons_again(handlers, local):
    # Tune leaves a handler that swallows the first one.
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.slow
def test_every_run_of_a_sweep_equals_plain_training_bit_for_bit(local, overrides):
    swept = rows(local.directory)
    for run in Plan(SPACE, overrides=overrides).runs():
        alone = []
        train(run, lambda step, row, to=alone: to.append({"step": step, **row}), device="cpu")
        for row in alone:
            del row["seconds"]
        assert swept[run_id(run)] == alone


@pytest.mark.slow
def test_two_nodes_give_the_bits_of_one(local, overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        result = sweep(
            SPACE,
            out=tmp_path / "two",
            overrides=overrides,
            execution=Execution(address=cluster.address),
        )
    finally:
        cluster.shutdown()
    assert dict(result.outcomes) == {"finished": 2}
    assert rows(result.directory) == rows(local.directory)
    assert not list(result.directory.glob(".probe*"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory, overrides):
    """ASHA over two sizes: LR 3e-2 learns, 1e-3 hardly, and epsilon 0 becomes NaN at once."""
    space = {
        "model.size": tune.grid_search([16, 32]),
        "optimizer.lr": tune.grid_search([3e-2, 1e-3, 2e-3, 4e-3, 8e-3, 1.5e-2, 1e3]),
        "optimizer.epsilon": tune.grid_search([1e-8, 0.0]),
    }
    return sweep(
        space,
        out=tmp_path_factory.mktemp("planted") / "sweep",
        overrides=overrides,
        execution=Execution(scheduler="asha", max_concurrent=1),
    )


def by_size_and_lr(directory, epsilon=1e-8):
    found = {}
    for name, outcome in outcomes(directory).items():
        config = json.loads((directory / "runs" / name / "run.json").read_text())["config"]
        if config["optimizer"]["epsilon"] == epsilon:
            found[config["model"]["width"], config["optimizer"]["lr"]] = outcome
    return found


@pytest.mark.slow
def test_divergence_is_an_outcome_under_asha(planted):
    assert planted.exit_code == 0
    found = by_size_and_lr(planted.directory, epsilon=0.0)
    assert len(found) == 14
    for outcome in found.values():
        # Embedding rows that no batch has touched: 0 / 0 in the very first update.
        assert (outcome["outcome"], outcome["step"]) == ("diverged", 0)
        assert (outcome["tensor"], outcome["value"]) == ("update_rms_embedding", "nan")
        assert "weight embedding.weight" in outcome["reason"]
        assert outcome["objective"] == outcome["loss_at_init"]
    assert all(math.isfinite(o["objective"]) for o in outcomes(planted.directory).values())
    values = [v for run in rows(planted.directory).values() for row in run for v in row.values()]
    assert all(math.isfinite(value) for value in values)


@pytest.mark.slow
def test_asha_stops_the_bad_and_never_the_best_of_a_size(planted):
    found = by_size_and_lr(planted.directory)
    stopped = {key: o for key, o in found.items() if o["outcome"] == "stopped"}
    assert stopped
    best = {}
    for size in (16, 32):
        of_size = [o for (s, _), o in found.items() if s == size]
        best[size] = min(of_size, key=lambda outcome: outcome["objective"])
        assert (best[size]["outcome"], best[size]["step"]) == ("finished", 20)
    for (size, _), outcome in stopped.items():
        assert outcome["objective"] > best[size]["objective"]
        assert outcome["step"] < 20
        assert f"best of size {size}" in outcome["reason"]


@pytest.mark.slow
def test_diverged_and_stopped_runs_are_closed_in_mlflow(planted):
    assert sync(planted.directory) == ""  # What a busy machine left over, or nothing.
    parents, children = mlflow_statuses(planted.directory)
    assert sum(children.values()) == 28
    assert "RUNNING" not in parents + children


@pytest.mark.slow
def test_a_users_model_that_returns_nan_is_an_outcome(tmp_path, monkeypatch, overrides):
    (tmp_path / "nan_model_for_test_sweep.py").write_text(NAN_MODEL)
    preset = tmp_path / "nan_preset_for_test_sweep.py"
    preset.write_text(NAN_PRESET.format(text=overrides["data.path"]))
    monkeypatch.chdir(tmp_path)
    result = sweep(
        {"optimizer.lr": tune.grid_search([1e-3, 1e-2])},
        out=tmp_path / "sweep",
        preset=f"{preset}:RUN",
        # A rung before step 7 could stop a run that has not failed yet.
        execution=Execution(scheduler="asha", grace_steps=10),
    )
    assert result.exit_code == 0
    assert dict(result.outcomes) == {"diverged": 2}
    for outcome in outcomes(result.directory).values():
        assert (outcome["step"], outcome["tensor"], outcome["value"]) == (6, "loss", "nan")
        assert math.isfinite(outcome["objective"])
        assert outcome["final_val_loss"] is not None
    assert sync(result.directory) == ""
    parents, children = mlflow_statuses(result.directory)
    assert "RUNNING" not in parents + children
    assert sum(children.values()) == 2


def test_models_that_cannot_be_built_are_refused_before_ray_starts(tmp_path, overrides):
    group = {"quantization.granularity": "group", "quantization.group_size": 48}
    with pytest.raises(ValueError, match=r"quantization.group_size must divide"):
        sweep(
            {"optimizer.lr": 0.1, "quantizer": "ternary-mean-bare"},
            out=tmp_path / "a" / "b",
            overrides={**overrides, **group},
            # Were Ray asked first, the sentence would be about the address.
            execution=Execution(address="127.0.0.1:1"),
        )
    assert list(tmp_path.iterdir()) == []
