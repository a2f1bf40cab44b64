"""A search with both forecasts: what may not begin, what is stopped, what Optuna hears of them."""

import json

import pytest
from learnt_sweep import write_learnt
from optuna.trial import TrialState
from processes import metrics, outcomes
from ray import tune

from foretune.analysis import load
from foretune.tuner.cli.end_table import stops
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_skip import never_begun
from foretune.tuner.planning.optuna_draws import Draws
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.planning.optuna_study import UNSTABLE
from foretune.tuner.records.journal import read_runs
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.sweeps.sweep import resume, sweep
from foretune.tuner.training.outcome import NO_LOSS

pytestmark = pytest.mark.slow

COUNT, STEPS, SIZE = 3, 200, 32
SPACE = {"optimizer.lr": tune.loguniform(5e-3, 5.0), "model.size": SIZE}


@pytest.fixture(scope="module")
def searched(text, tmp_path_factory):
    """The folder of a search that ended; its law lets begin what the other forecast then stops."""
    fields = {"steps": STEPS, "eval_every": 50, "data.validation_sequences": 8}
    rates = (3e-2, 1e-1, 3e-1, 1.0, 3.0)
    folder = tmp_path_factory.mktemp("forecasts")
    learnt = write_learnt(folder / "learnt", text, critical=2.0, lrs=rates, **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        result = sweep(
            SPACE, out=folder / "sweep", search="optuna", num_samples=COUNT, seed=3,
            overrides={**fields, "data.name": "text", "data.path": str(text)},
            execution=Execution(
                stopper="forecast", audit=0.0, skip_above=0.95, skip_from=str(learnt),
                max_concurrent=1, checkpoint_seconds=0,
            ),
        )  # fmt: skip
    assert result.exit_code == 0
    return result.directory


def study(out):
    """The search in a directory, as a resume builds it: {run id: trial}, and how many are left."""
    facts = json.loads((out / "sweep.json").read_text())
    waiting, ended = read_runs(out)
    draws = Draws(out, OpenPlan.from_json(facts["draws"]), [*waiting, *ended])
    runs = sorted([*waiting, *ended], key=lambda run: run.draw.number)
    trials = draws._study.study.get_trials()
    return {run.run_id: trial for run, trial in zip(runs, trials, strict=True)}, draws.left


def test_a_search_stops_and_skips_and_optuna_hears_it_as_infeasible_at_a_finite_value(searched):
    ends = outcomes(searched)
    skipped = {name for name, outcome in ends.items() if never_begun(RunEnd.from_json(outcome))}
    finished = {name for name, outcome in ends.items() if outcome["outcome"] == "finished"}
    stopped = set(ends) - skipped - finished
    assert skipped
    assert stopped
    assert finished
    assert len(stopped) + len(finished) == COUNT
    trials, left = study(searched)
    assert left == 0
    for name, outcome in ends.items():
        trial = trials[name]
        if name in finished:
            assert (trial.state, trial.constraints) == (TrialState.COMPLETE, {})
            assert trial.value == outcome["objective"]
            continue
        forecast = outcome["forecast"]
        assert (trial.state, trial.constraints) == (
            TrialState.PRUNED, {UNSTABLE: forecast["probability"]},
        )  # fmt: skip
        assert trial.intermediate_values == {outcome["step"]: outcome["objective"]}
        assert outcome["objective"] <= NO_LOSS
        begins = "skipped before it started: " if name in skipped else "forecast to end unstable "
        assert outcome["reason"].startswith(begins)
        assert (outcome["step"] == 0) == (name in skipped)
    assert stops(load(searched).trials).startswith(
        f"forecast: {len(stopped)} stopped, {len(skipped)} not started; "
    )


def test_a_search_that_was_cut_off_goes_on_to_the_same_runs_stops_and_bits(searched, monkeypatch):
    """What a killed driver leaves: the runs up to one that hasn't ended, and none after it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    whole, traces = outcomes(searched), metrics(searched)
    runs = {json.loads(p.read_text())["draw"]["number"]: p.parent for p in
            searched.glob("runs/*/run.json")}  # fmt: skip
    cut = 1
    kept, unfinished, *_ = (whole[runs[number].name] for number in sorted(runs))
    assert never_begun(RunEnd.from_json(kept))
    assert unfinished["outcome"] == "finished"
    for number, folder in runs.items():
        if number > cut:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()
    (runs[cut] / "outcome.json").unlink()
    assert resume(searched).exit_code == 0
    again = outcomes(searched)
    names = ("outcome", "step", "reason", "forecast", "objective")
    assert {n: [o[f] for f in names] for n, o in again.items()} == {
        n: [o[f] for f in names] for n, o in whole.items()
    }
    assert metrics(searched) == traces
