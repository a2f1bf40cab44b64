"""Sweeps of version 0.1.0, before the one package foretune, are read and go on."""

import json
import shutil
from pathlib import Path

import pytest
from processes import here, metrics, outcomes

from foretune import load, predict
from foretune.analysis import collect, write_report
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.records.run_json import from_config, run_id

OLDER = Path(__file__).parents[2] / "older_sweeps"


@pytest.fixture
def older(tmp_path, monkeypatch) -> Path:
    """A copy of them; their text is named relative to the folder that they are in."""
    shutil.copytree(OLDER, tmp_path / "older")
    monkeypatch.chdir(tmp_path / "older")
    return tmp_path / "older"


@pytest.mark.parametrize("name", ["grid", "optuna"])
def test_their_runs_have_the_ids_that_they_had(name):
    folders = sorted((OLDER / name / "runs").iterdir())
    assert len(folders) >= 4
    for folder in folders:
        config = json.loads((folder / "run.json").read_text())["config"]
        assert run_id(from_config(config)) == folder.name


def test_they_are_tabled_forecast_and_reported(older):
    assert collect(older / "grid").trials["outcome"].value_counts()["finished"] == 6
    assert len(load(older / "grid").trials) == 9
    forecast = predict(older / "grid", n_params=590_720, lr=1e-2)
    assert forecast.reason
    assert write_report(older / "grid").is_file()


def test_parts_of_a_run_are_found_where_their_classes_are_now(older):
    draws = json.loads((older / "optuna" / "sweep.json").read_text())["draws"]
    assert "models.quantize:Quantization" in json.dumps(draws)
    plan = OpenPlan.from_json(draws)
    kinds = {type(value).__module__ for _, _, choice in plan.space.choices(0) if choice.values
             for value in choice.values}  # fmt: skip
    assert kinds == {"foretune.models.quantization.config", "foretune.models.nets.transformer"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runs"), [("grid", 9), ("optuna", 6)])
def test_they_go_on_and_what_had_ended_stays(older, name, runs):
    before, rows = outcomes(older / name), metrics(older / name)
    output = here("resume", older / name, cwd=older)
    after = outcomes(older / name)
    assert f"{runs} trials: {runs} finished" in output
    assert len(after) == runs > len(before)
    assert {run: after[run] for run in before} == before
    ended = {run: text for run, text in metrics(older / name).items() if run in before}
    assert ended == {run: rows[run] for run in before}
