"""Optuna's draws on a real study: what it learns, what is drawn again, what a resume rebuilds."""

import json
import warnings

import pytest
from learnt_sweep import write_learnt
from optuna.trial import TrialState
from ray import tune

from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_skip import SkipRule
from foretune.tuner.planning.optuna_draws import Draws
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.planning.optuna_study import DIVERGED, IMPOSSIBLE, STARTUP, UNSTABLE
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.journal import read_runs
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import from_config
from foretune.tuner.sweeps.searcher import RunSearcher
from foretune.tuner.training.outcome import NO_LOSS, Outcome

LR = {"optimizer.lr": tune.loguniform(1e-3, 1e-1), "model.size": tune.choice([16, 32])}
PARTS = [
    {"quantizer": "none", "optimizer.lr": tune.loguniform(1e-3, 1e-2)},
    {"quantizer": "ternary-mean", "optimizer.lr": tune.loguniform(1e-2, 1e-1)},
]
FORECAST = {"probability": 0.9, "threshold": 0.5, "step": 8, "by_step": 12, "reason": "logits"}


@pytest.fixture
def draws(tmp_path, text):
    """Makes the draws of a space over a directory, from what is written there."""

    def make(space=LR, *, out="sweep", num_samples=40, seed=0, overrides=None, skip=None):
        directory = tmp_path / out
        (directory / "runs").mkdir(parents=True, exist_ok=True)
        fixed = {"steps": 20, "data.name": "text", "data.path": str(text), **(overrides or {})}
        plan = Plan(space, search="optuna", num_samples=num_samples, seed=seed, overrides=fixed)
        waiting, ended = read_runs(directory)
        return Draws(directory, OpenPlan.of(plan), [*waiting, *ended], skip=skip)

    return make


def end(draws, record, outcome="finished", loss=3.0, step=20, forecast=None):
    """Ends a run as the driver does: outcome.json, then word to who listens."""
    ended = Outcome(
        outcome=outcome, step=step, reason="", loss_at_init=5.5, final_val_loss=loss,
        forecast=forecast,
    )  # fmt: skip
    RunEnd.of(record.run_id, ended).write(draws._runs_dir / record.run_id)
    draws.trial_ended(record.run_id)


def loss_of(facts):
    """A bowl over the learning rate, best at 0.01."""
    return 2 + (facts.run.optimizer.lr / 0.01 - 1) ** 2 / 10


def study_of(draws):
    return draws._study.study.get_trials()


def ran(draws, count):
    """Draws and ends runs one at a time; their facts."""
    found = []
    for _ in range(count):
        facts = draws.draw()
        end(draws, facts, loss=loss_of(facts))
        found.append(facts)
    return found


def names(facts):
    return [f.run_id for f in facts]


def test_a_draw_is_written_down_with_its_number_and_what_optuna_chose(draws):
    search = draws()
    first, second = search.draw(), search.draw()
    for number, facts in enumerate([first, second]):
        written = json.loads((search._runs_dir / facts.run_id / "run.json").read_text())
        assert written["draw"] == {"number": number, "params": study_of(search)[number].params,
            "rejected": []}  # fmt: skip
        assert from_config(written["config"]) == facts.run
        assert written["draw"]["params"]["optimizer.lr"] == facts.run.optimizer.lr
        assert written["data_sha256"]
    assert [t.state for t in study_of(search)] == [TrialState.RUNNING] * 2
    assert search.left == 38
    assert search.label(first).startswith("lr=")


def test_a_finished_run_is_told_as_complete_with_its_objective(draws):
    search = draws()
    end(search, search.draw(), loss=2.5)
    (trial,) = study_of(search)
    assert (trial.state, trial.value, trial.constraints) == (TrialState.COMPLETE, 2.5, {})


def test_a_diverged_run_is_infeasible_at_a_finite_value(draws):
    search = draws()
    end(search, search.draw(), "diverged", step=7)
    (trial,) = study_of(search)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 5.5)
    assert trial.constraints == {DIVERGED: 1.0}


def test_a_run_that_a_scheduler_stopped_is_pruned_where_it_got_to(draws):
    search = draws()
    end(search, search.draw(), "stopped", loss=4.0, step=8)
    (trial,) = study_of(search)
    assert (trial.state, trial.constraints) == (TrialState.PRUNED, {})
    assert trial.intermediate_values == {8: 4.0}


def test_a_run_that_a_forecast_stopped_is_infeasible_and_an_audited_one_is_not(draws):
    search = draws()
    end(search, search.draw(), "stopped", 4.0, 8, {**FORECAST, "audited": False})
    end(search, search.draw(), "finished", 3.0, 20, {**FORECAST, "audited": True})
    stopped, audited = study_of(search)
    assert (stopped.state, stopped.constraints) == (TrialState.PRUNED, {UNSTABLE: 0.9})
    assert (audited.state, audited.value, audited.constraints) == (TrialState.COMPLETE, 3.0, {})


def test_a_failed_run_says_nothing(draws):
    search = draws()
    end(search, search.draw(), "failed", step=0)
    (trial,) = study_of(search)
    assert (trial.state, trial.values) == (TrialState.FAIL, None)


def test_an_impossible_combination_is_told_and_drawn_again(draws):
    space = {"model.head_dim": tune.choice([3, 5, 6, 7, 8]), "model.size": tune.choice([16, 24]),
        "optimizer.lr": tune.loguniform(1e-3, 1e-1)}  # fmt: skip
    search = draws(space, num_samples=12)
    found = ran(search, 12)
    rejected = [r for f in found for r in f.draw.rejected]
    assert rejected
    assert all(r.run_id == "" and "head_dim" in r.why for r in rejected)
    infeasible = [t for t in study_of(search) if t.constraints == {IMPOSSIBLE: 1.0}]
    assert [t.params for t in infeasible] == [r.params for r in rejected]
    assert {t.state for t in infeasible} == {TrialState.PRUNED}
    assert len(study_of(search)) == 12 + len(rejected)
    assert study_of(draws(space, num_samples=12))[5:9] != []
    assert same(study_of(draws(space, num_samples=12)), study_of(search))


def test_a_draw_that_a_law_forecasts_to_be_unstable_is_told_and_another_drawn(
    draws, text, tmp_path
):
    """The law: unstable at width 16 from 0.052 on. What is skipped takes no one's place."""
    fields = {"eval_every": 50, "data.validation_sequences": 128}
    learnt = write_learnt(tmp_path / "learnt", text, **fields)
    rule = SkipRule(Execution(skip_above=0.95, skip_from=str(learnt)))
    space = {"optimizer.lr": tune.grid_search([0.01, 0.2, 0.3]), "model.size": 16}
    search, heard = draws(space, num_samples=2, skip=rule), []
    facts = search.draw(lambda run, end: heard.append((run.run_id, end)))
    assert facts.run.optimizer.lr == 0.01
    end(search, facts)
    assert search.left == 1
    assert search.draw(lambda run, end: heard.append((run.run_id, end))) is None
    assert search.exhausted.startswith("Optuna drew 1 of 2 trials: ")
    assert len(heard) == 2
    for name, ended in heard:
        folder = search._runs_dir / name
        assert json.loads((folder / "outcome.json").read_text()) == ended.to_json()
        assert json.loads((folder / "run.json").read_text())["config"]["optimizer"]["lr"] > 0.1
    infeasible = [t for t in study_of(search) if UNSTABLE in t.constraints]
    assert {t.state for t in infeasible} == {TrialState.PRUNED}
    assert {t.value for t in infeasible} == {NO_LOSS}
    again = draws(space, num_samples=2, skip=rule)
    assert again.left == 1
    assert same(study_of(again), study_of(search)[: len(study_of(again))])


def test_a_repeated_run_is_told_what_is_known_and_the_space_ends(draws):
    space = {"optimizer.lr": tune.grid_search([1e-2, 3e-2]), "model.size": tune.choice([16, 32])}
    search = draws(space, num_samples=6)
    found = [search.draw()]
    while (facts := search.draw()) is not None:
        end(search, found[-1], loss=loss_of(found[-1]))
        found.append(facts)
    assert len(set(names(found))) == len(found) == 4
    assert "Optuna drew 4 of 6 trials: 220 more draws gave no new one" in search.exhausted
    running = [t for t in study_of(search) if t.state == TrialState.RUNNING]
    assert {t.params["optimizer.lr"] for t in running} == {found[-1].draw.params["optimizer.lr"]}
    end(search, found[-1], loss=1.0)
    repeated = [t for t in study_of(search) if t.params == found[-1].draw.params]
    assert len(repeated) > 1
    assert {t.value for t in repeated} == {1.0}
    assert search.draw() is None


def same(trials, others):
    """Whether two studies are the same to a sampler."""
    keys = ("number", "state", "params", "values", "constraints", "intermediate_values")
    one, other = ([[getattr(t, key) for key in keys] for t in ts] for ts in (trials, others))
    return one == other


@pytest.mark.parametrize("space", [LR, PARTS], ids=["one part", "two parts"])
def test_the_same_seed_gives_the_same_runs_and_another_seed_others(draws, space):
    count = STARTUP + 6
    one, two = (ran(draws(space, out=out, seed=3), count) for out in ("one", "two"))
    assert names(one) == names(two)
    assert not set(names(one)) & set(names(ran(draws(space, out="other", seed=4), 3)))


@pytest.mark.parametrize("space", [LR, PARTS], ids=["one part", "two parts"])
def test_a_study_built_again_goes_on_as_the_one_before(draws, space):
    count = STARTUP + 6
    whole = ran(draws(space, out="whole"), count)
    found = []
    for _ in range(count):  # As if killed after every run, and with one that is running.
        search = draws(space, out="parts")
        facts = search.draw()
        again = draws(space, out="parts")
        assert same(study_of(again), study_of(search))
        end(again, facts, loss=loss_of(facts))
        found.append(facts)
    assert names(found) == names(whole)
    assert [f.draw for f in found] == [f.draw for f in whole]


def test_once_it_knows_enough_tpe_keeps_away_from_what_diverged(draws):
    search = draws({"optimizer.lr": tune.loguniform(1e-3, 1e-1)}, num_samples=60)
    lrs = []
    for _ in range(60):
        facts = search.draw()
        lrs.append(facts.run.optimizer.lr)
        end(search, facts, "diverged" if lrs[-1] > 0.02 else "finished", loss=loss_of(facts))
    assert sum(lr > 0.02 for lr in lrs[:STARTUP]) >= 2
    assert sum(lr > 0.02 for lr in lrs[-20:]) <= 2


def test_a_resume_with_another_preset_is_refused(draws):
    draws().draw()
    with pytest.raises(ValueError, match="must be what its draw gives, got another run"):
        draws(overrides={"eval_every": 10})


def test_the_searcher_gives_waiting_runs_first_then_new_ones_up_to_the_number(draws):
    search = draws(num_samples=3)
    waiting = [search.draw(), search.draw()]
    again, entered = draws(num_samples=3), []
    searcher = RunSearcher(again, waiting[::-1], enter=entered.append)
    given = [searcher.suggest(f"trial {i}") for i in range(4)]
    assert [g["run_id"] for g in given[:2]] == names(waiting)
    assert [given[2]["run_id"]] == names(entered)
    assert given[3] == "FINISHED"
    assert again.exhausted == ""


def test_nothing_warns(draws):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ran(draws(PARTS), STARTUP + 2)
        draws(PARTS)
    assert [str(w.message) for w in caught] == []
