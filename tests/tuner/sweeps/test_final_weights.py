"""A finished run keeps the weights that it ended with, and no other run keeps any."""

import json
import os
from dataclasses import replace

import pytest
import torch
from commands import TEXT, call, printed_numbers, train
from ray import tune
from short_runs import follow, small

from foretune.tuner.config.resolve import resolve
from foretune.tuner.planning.execution import Execution
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.run_json import run_id
from foretune.tuner.sweeps.sweep import sweep
from foretune.tuner.training.checkpoint import MODEL_FILE, read_model
from foretune.tuner.training.train import Training

torch.set_num_threads(1)


def test_train_keeps_the_weights_that_it_ended_with_and_nothing_else(tmp_path, text):
    changes = {**TEXT, "data.name": "text", "data.path": str(text)}
    run_dir = train(tmp_path, "lm-tiny", changes)
    assert [path.name for path in (run_dir / "checkpoint").iterdir()] == [MODEL_FILE]
    _, _, training = follow(resolve("lm-tiny", overrides=changes))
    weights = read_model(run_dir / "checkpoint")
    mine = training.model.state_dict()
    assert weights.keys() == mine.keys()
    assert all(torch.equal(weights[name], mine[name]) for name in mine)
    values = sum(w.numel() for w in weights.values())
    assert (run_dir / "checkpoint" / MODEL_FILE).stat().st_size < 4 * values + 10_000


def test_a_train_killed_before_its_outcome_was_written_ends_the_same(tmp_path, text):
    changes = {**TEXT, "data.name": "text", "data.path": str(text)}
    run = resolve("lm-tiny", overrides=changes)
    checkpoint = tmp_path / "runs" / run_id(run) / "checkpoint"
    metrics = MetricsFile(checkpoint.parent / "metrics.jsonl")
    training = Training(run, metrics, device="cpu")
    training.advance()
    training.save(checkpoint, rows=metrics.sync())
    training.advance()
    training.save_model(checkpoint)
    metrics.close()
    mine = (checkpoint / MODEL_FILE).read_bytes()
    train(tmp_path, "lm-tiny", changes)
    assert [path.name for path in checkpoint.iterdir()] == [MODEL_FILE]
    assert (checkpoint / MODEL_FILE).read_bytes() == mine


@pytest.mark.parametrize("how", ["unfinished", "stopped", "diverged"])
def test_only_a_finished_run_has_final_weights(text, tmp_path, how):
    training = Training(small(text), lambda step, row: None, device="cpu")
    training.advance()
    if how != "unfinished":
        training.end(how, "")
    with pytest.raises(AssertionError, match=how):
        training.save_model(tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_a_train_that_diverged_keeps_no_weights(tmp_path, text):
    changes = {**TEXT, "data.name": "text", "data.path": str(text), "optimizer.epsilon": 0.0}
    run_dir = train(tmp_path, "lm-tiny", changes, code=4)
    assert json.loads((run_dir / "outcome.json").read_text())["outcome"] == "diverged"
    assert not (run_dir / "checkpoint" / MODEL_FILE).exists()


@pytest.mark.slow
def test_a_sweep_keeps_finished_models_where_it_is_asked_to(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    space = {"optimizer.epsilon": tune.grid_search([1e-8, 0.0]), "model.size": 16}
    overrides = {**TEXT, "data.name": "text", "data.path": os.__file__}
    overrides = {**overrides, "quantizer": "ternary-mean"}
    execution = Execution(keep_models=True, max_concurrent=1)
    result = sweep(space, out=tmp_path / "kept", overrides=overrides, execution=execution)
    assert dict(result.outcomes) == {"finished": 1, "diverged": 1}
    for path in (result.directory / "runs").iterdir():
        outcome = json.loads((path / "outcome.json").read_text())["outcome"]
        assert (path / "checkpoint" / MODEL_FILE).exists() == (outcome == "finished")
        if outcome == "finished":
            code, out, _ = call(capsys, f"export '{path}'")
            assert (code, printed_numbers(out)[3]) == (0, 0.0)
    kept = json.loads((result.directory / "sweep.json").read_text())["execution"]
    assert kept["keep_models"] is True
    store = {"tracking_uri": kept["tracking_uri"], "experiment": "foretune"}
    assert Execution(**kept) == replace(execution, **store)
