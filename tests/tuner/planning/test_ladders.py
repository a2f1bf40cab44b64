"""Real runs on the two ladders beside width: planned, trained, forecast, tabled, backtested."""

import json

import pytest
import torch
from ray import tune

from foretune.analysis import load
from foretune.analysis.records.families import families
from foretune.models import TransformerConfig, at_size, count
from foretune.tuner.cli.backtest import backtest
from foretune.tuner.cli.end_table import end_table
from foretune.tuner.cli.predict import predict
from foretune.tuner.config.resolve import resolve
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.spaces import narrow
from foretune.tuner.records.files import MetricsFile
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import describe, run_id
from foretune.tuner.training.train import train

torch.set_num_threads(1)

pytestmark = pytest.mark.slow  # Twelve runs are trained for all of them.

RATES = tune.grid_search([3e-2, 3e-1])
DEPTHS = {"model.ladder": "depth", "model.size": tune.grid_search([1, 2, 4])}
BOTH = {"model.ladder": "joint", "model.size": tune.grid_search([16, 32, 48])}
ON_DEPTH = TransformerConfig(width=16, ladder="depth")


@pytest.fixture(scope="module")
def swept(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("ladders") / "sweep"
    short = {"steps": 60, "data.name": "text", "data.path": str(text), "batch_size": 4}
    short |= {"micro_batch_size": 4, "data.validation_sequences": 8}
    space = [
        {**DEPTHS, "model.width": 16, "optimizer.lr": RATES},
        {**BOTH, "optimizer.lr": RATES},
    ]
    for run in Plan(space, overrides=short).runs():
        end(run, out / "runs" / run_id(run))
    return out


def end(run, folder):
    """Trains a run as a trial does, without Ray: starting that would cost more than all runs."""
    record = describe(run)
    record.write(folder)
    rows = MetricsFile(folder / "metrics.jsonl")
    outcome = train(run, rows, device="cpu")
    rows.close()
    RunEnd.of(record.run_id, outcome).write(folder)


def ask(directory, size, **more):
    how = {"lr": None, "threshold": "8", "level": 0.9, "json": False, "save": "", **more}
    assert predict(directory, size=size, **how) == 0


def test_records_name_the_dial_and_ladders_are_families(swept):
    trials = load(swept).trials
    for _, run in trials.iterrows():
        depth = run["size"] if run["model.ladder"] == "depth" else run["size"] / 16
        width = 16 if run["model.ladder"] == "depth" else run["size"]
        assert (run["model.depth"], run["model.width"]) == (depth, width)
    found = {family.label: sorted(set(family.trials["size"])) for family in families(trials)}
    assert found == {"model.ladder=depth": [1, 2, 4], "model.ladder=joint": [16, 32, 48]}


def test_a_forecast_counts_parameters_on_the_ladder_that_it_speaks_of(swept, capsys):
    ask(swept, 6, lr=1e-2)
    output = capsys.readouterr().out
    assert f"size 6 ({count(at_size(ON_DEPTH, 6)).n_params:,} parameters" in output
    assert "ladder depth; width 16" in output
    with pytest.raises(ValueError, match=r"^at model.depth must be left out where size sets"):
        ask(swept, 6, at=["model.depth=3"])
    assert capsys.readouterr().out == ""


def test_a_forecast_on_the_joint_ladder(swept, tmp_path, capsys):
    """Of its half of the sweep alone: with both, the family is chosen by where it crosses."""
    half = tmp_path / "half"
    for run in (swept / "runs").iterdir():
        if json.loads((run / "run.json").read_text())["config"]["model"]["ladder"] == "joint":
            (half / "runs").mkdir(parents=True, exist_ok=True)
            (half / "runs" / run.name).symlink_to(run)
    ask(half, 64)
    output = capsys.readouterr().out
    model = TransformerConfig(width=64, depth=4, ladder="joint")
    assert f"size 64 ({count(model).n_params:,} parameters" in output
    assert "ladder joint" in output
    assert "width" not in output


def test_tables_and_backtests_know_both_ladders(swept, capsys):
    table = [line.split()[:2] for line in end_table(load(swept).trials).splitlines()[2:]]
    assert table == [["depth", size] for size in "124"] + [["joint", s] for s in ("16", "32", "48")]
    assert backtest(swept, share=0.2) == 0
    output = capsys.readouterr().out
    assert "Across scale, model.ladder=depth" in output
    assert "Across scale, model.ladder=joint" in output


def test_the_ladder_is_set_before_the_size_wherever_it_is_from():
    changes = {"model.size": 6, "model.ladder": "depth", "model.width": 32}
    run = resolve("lm-tiny", overrides=changes)
    assert (run.model.width, run.model.depth) == (32, 6)
    assert resolve("lm-tiny", size=6, overrides={"model.ladder": "depth"}).model.depth == 6
    fixed = {"model.ladder": "joint"}
    plan = Plan(narrow({"optimizer.lr": RATES}, sizes=(32, 64), fixed=fixed), overrides=fixed)
    shapes = {(r.model.width, r.model.depth) for r in plan.runs()}
    assert shapes == {(32, 2), (64, 4)}
    vit = resolve("vit-tiny", size=5, overrides={"model.ladder": "depth"})
    assert (vit.model.width, vit.model.depth) == (64, 5)


@pytest.mark.parametrize(
    ("preset", "changes", "size", "sentence"),
    [
        ("lm-tiny", {"model.ladder": "depht"}, 2, "model.ladder must be one of width, depth"),
        ("lm-tiny", {"model.ladder": "depth"}, 0, "model.depth must be a whole number from 1"),
        ("lm-tiny", {"model.ladder": "joint"}, 40, "the nearest widths are 32 and 48"),
        ("cnn-tiny", {"model.ladder": "depth"}, 16, "model.ladder is no field of ConvNetConfig"),
    ],
)
def test_a_rung_that_is_not_there_is_one_sentence(preset, changes, size, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(preset, size=size, overrides=changes)
