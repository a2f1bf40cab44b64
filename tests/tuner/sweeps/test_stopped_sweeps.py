"""Whole sweeps with a forecast: what it stops is on record everywhere, after a kill as well."""

import io
import json
import os
import re
from contextlib import redirect_stdout

import pandas as pd
import pytest
import torch
from mlflow_sweeps import children, store
from processes import (
    here,
    kill,
    metrics,
    outcomes,
    short,
    start,
    unfinished_with_checkpoint,
    wait_for,
)
from ray import tune

from foretune.analysis import critical_table, load, sensitivity_table
from foretune.analysis.measures.signal import read_signal
from foretune.tuner.cli.end_table import stops
from foretune.tuner.planning.execution import Execution
from foretune.tuner.sweeps.sweep import sweep
from foretune.tuner.tracking.sender import sync

pytestmark = pytest.mark.slow

STEPS = 300
SWEEP = (
    "sweep", "lr", "--out", "sweep", "--sizes", "32", "--grid", "optimizer.lr=1e-2,3e-1",
    "--checkpoint-seconds", "0", "--stopper", "forecast", "--audit", "0.5",
)  # fmt: skip


def decisions(out):
    """{run id: how it ended}."""
    fields = ("outcome", "step", "forecast", "reason", "objective")
    return {name: [end[f] for f in fields] for name, end in outcomes(out).items()}


def test_a_killed_sweep_stops_the_same_runs_at_the_same_steps(text, tmp_path):
    settings = (
        *short(text, STEPS, eval_every=20, sequences=8),
        *("--seeds", "2", "--drop", "model.qk_norm"),
    )
    output = here(*SWEEP, *settings, cwd=tmp_path)
    whole = decisions(tmp_path / "sweep")
    stopped = sum(outcome == "stopped" for outcome, *_ in whole.values())
    audited = sum(bool(forecast and forecast["audited"]) for _, _, forecast, *_ in whole.values())
    assert (len(whole), stopped + audited) == (4, 2)  # The two of the higher learning rate.
    assert f"forecast: {stopped} stopped; " in output
    assert ("audit: " in output) == (audited > 0)
    cut = tmp_path / "cut"
    cut.mkdir()
    process = start(*SWEEP, *settings, cwd=cut)
    wait_for(lambda: unfinished_with_checkpoint(cut / "sweep"), process)
    kill(process)
    assert len(outcomes(cut / "sweep")) < 4
    assert f"forecast: {stopped} stopped; " in here("resume", "sweep", cwd=cut)
    assert decisions(cut / "sweep") == whole
    assert metrics(cut / "sweep") == metrics(tmp_path / "sweep")


@pytest.fixture(scope="module")
def local(text, tmp_path_factory):
    """Under ASHA, with runs that the forecast can't tell of; what was printed, and the folder."""
    output, threads = io.StringIO(), torch.get_num_threads()
    address = os.environ.pop("RAY_ADDRESS", None)
    torch.set_num_threads(1)
    try:
        with redirect_stdout(output):
            result = sweep(
                {
                    "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-1]),
                    "steps": tune.grid_search([20, STEPS]),
                    "model.size": 32,
                },
                out=tmp_path_factory.mktemp("local") / "sweep",
                overrides={"eval_every": 20, "data.name": "text", "data.path": str(text)},
                execution=Execution(
                    stopper="forecast", audit=0.0, scheduler="asha", grace_steps=200
                ),
            )
    finally:
        torch.set_num_threads(threads)
        if address is not None:
            os.environ["RAY_ADDRESS"] = address
    return output.getvalue(), result


@pytest.fixture(scope="module")
def records(local):
    return load(local[1].directory)


@pytest.fixture(scope="module")
def fired(local):
    """The one run that the forecast stopped: id and outcome.json."""
    ends = {n: o for n, o in outcomes(local[1].directory).items() if o["forecast"]}
    ((name, outcome),) = ends.items()
    return name, outcome


def test_the_forecast_stops_before_asha_may(local, fired):
    _, result = local
    assert result.exit_code == 0
    name, outcome = fired
    run = json.loads((result.directory / "runs" / name / "run.json").read_text())
    assert (run["config"]["optimizer"]["lr"], run["config"]["steps"]) == (3e-1, STEPS)
    assert outcome["outcome"] == "stopped"
    assert outcome["step"] == outcome["forecast"]["step"] + 1 < 200
    others = [o for n, o in outcomes(result.directory).items() if n != name]
    assert all(o["outcome"] == "finished" or o["reason"].startswith("ASHA") for o in others)


def test_it_is_said_before_and_during_the_sweep(local, fired):
    output, _ = local
    sentence = (
        r"(?m)^stopper forecast cannot tell for 3 of 6 runs, which run without it: it was fitted "
        r"on runs with steps .*, got 20\."
    )
    assert re.search(sentence, output)
    assert f"stopped, loss {fired[1]['final_val_loss']:.3f} ({fired[1]['reason']})" in output


def test_the_sweep_keeps_its_settings_and_its_model(local):
    _, result = local
    execution = json.loads((result.directory / "sweep.json").read_text())["execution"]
    assert {k: execution[k] for k in ("stopper", "false_stops", "audit")} == {
        "stopper": "forecast", "false_stops": 0.05, "audit": 0.0,
    }  # fmt: skip
    assert "thresholds" in json.loads((result.directory / "forecast.json").read_text())["about"]


def test_tables_have_the_forecast(local, fired, records):
    trials = pd.read_parquet(local[1].directory / "trials.parquet").set_index("run_id")
    name, outcome = fired
    row = trials.loc[name]
    assert row["forecast_probability"] == outcome["forecast"]["probability"]
    assert (row["forecast_step"], row["audited"]) == (outcome["forecast"]["step"], 0.0)
    assert trials["forecast_probability"].notna().sum() == 1
    total = 3 * STEPS + 3 * 20
    by_asha = records.trials["reason"].str.startswith("ASHA")
    assert stops(records.trials[~by_asha]).startswith("forecast: 1 stopped; ")
    saved = STEPS - outcome["step"]
    share = f"{saved} of {total} steps ({saved / total:.0%}) saved"
    assert share in stops(records.trials)


def test_mlflow_has_the_forecast_as_tags(local, fired):
    directory = local[1].directory
    assert sync(directory) == ""  # What a busy machine left over, or nothing.
    name, outcome = fired
    found = children(store(directory), directory)
    tags = found[name].data.tags
    forecast = outcome["forecast"]
    assert {k: v for k, v in tags.items() if k.startswith("foretune.forecast.")} == {
        "foretune.forecast.probability": f"{forecast['probability']:.4g}",
        "foretune.forecast.step": str(forecast["step"]),
        "foretune.forecast.reason": forecast["reason"],
        "foretune.forecast.audited": "false",
    }
    others = (run.data.tags for n, run in found.items() if n != name)
    assert not any(k.startswith("foretune.forecast") for tags in others for k in tags)


def test_a_stopped_run_is_a_bound_and_not_a_divergence(fired, records):
    name, outcome = fired
    trials = records.trials[records.trials["steps"] == STEPS]
    mine = trials.set_index("run_id").loc[name]
    assert not mine["diverged"]
    assert mine["objective"] == outcome["objective"] < mine["loss_at_init"]
    (row,) = sensitivity_table(trials[~trials["reason"].str.startswith("ASHA")]).to_dict("records")
    assert "1 stopped early and count from the best loss to the loss at init" in row["status"]
    assert row["low"] < row["sensitivity"] < row["high"]
    cells = read_signal(trials, records.telemetry).set_index("run_id")
    assert cells.loc[name, "censored"]
    assert pd.isna(cells.loc[name, "loss"])
    table = critical_table(trials, records.telemetry, threshold=1e9)
    assert len(table) == 1
