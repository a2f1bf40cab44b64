"""Whole searches on Ray: chosen one after another, early stops, killed and resumed."""

import json
import signal
import sqlite3

import pytest
from optuna.trial import TrialState
from processes import (
    endings,
    here,
    interrupt,
    kill,
    metrics,
    outcomes,
    short,
    start,
    unfinished_with_checkpoint,
    wait_for,
)
from ray import tune

from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.optuna_draws import Draws
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.records.journal import read_runs
from foretune.tuner.sweeps.sweep import sweep
from foretune.tuner.tracking.sender import sync

COUNT = 6
STEPS = 100


@pytest.fixture(scope="module")
def command(text):
    return (
        "sweep", "random-lr", "--search", "optuna", "--num-samples", str(COUNT), "--sizes", "16",
        "--max-concurrent", "1", "--checkpoint-seconds", "0", "--out", "sweep",
        *short(text, STEPS),
    )  # fmt: skip


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, command):
    """The folder of a search that nothing interrupted."""
    cwd = tmp_path_factory.mktemp("baseline")
    output = here(*command, cwd=cwd)
    for words in (f"[{COUNT}/{COUNT}]", f"{COUNT} trials: {COUNT} finished", "\nbest: lr="):
        assert words in output
    return cwd / "sweep"


def drawn(out):
    """{number: (run id, draw)} of the runs of a sweep."""
    found = [json.loads(path.read_text()) for path in out.glob("runs/*/run.json")]
    return {f["draw"]["number"]: (f["run_id"], f["draw"]) for f in found}


def study(out):
    """The search in a directory, as a resume builds it, and its trials at Optuna."""
    facts = json.loads((out / "sweep.json").read_text())
    waiting, ended = read_runs(out)
    draws = Draws(out, OpenPlan.from_json(facts["draws"]), [*waiting, *ended])
    return draws, draws._study.study.get_trials()


@pytest.mark.slow
def test_a_search_leaves_what_any_sweep_leaves(baseline):
    facts = json.loads((baseline / "sweep.json").read_text())
    assert (facts["search"], facts["trials"]) == ("optuna", COUNT)
    assert sorted(drawn(baseline)) == list(range(COUNT))
    assert {o["outcome"] for o in outcomes(baseline).values()} == {"finished"}
    for table in ("trials.parquet", "telemetry.parquet"):
        assert (baseline / table).exists()
    assert sync(baseline) == ""  # What a busy machine left over, or nothing.
    with sqlite3.connect(f"file:{baseline / 'mlflow.db'}?mode=ro", uri=True) as database:
        statuses = [row[0] for row in database.execute("select status from runs")]
    database.close()
    assert statuses == ["FINISHED"] * (COUNT + 1)
    draws, trials = study(baseline)
    assert draws.left == 0
    assert [t.value for t in trials] == [
        outcomes(baseline)[run_id]["objective"]
        for _, (run_id, _) in sorted(drawn(baseline).items())
    ]


@pytest.mark.slow
def test_a_search_cut_off_twice_goes_on_to_the_same_runs_and_bits(baseline, command, tmp_path):
    """TPE has its say from draw 10 on: that it goes on the same is in test_optuna_search."""
    out = tmp_path / "sweep"
    process = start(*command, cwd=tmp_path)
    wait_for(lambda: outcomes(out) and unfinished_with_checkpoint(out), process)
    assert "unfinished" in interrupt(process, signal.SIGINT)
    first = len(outcomes(out))
    process = start("resume", "sweep", cwd=tmp_path)
    wait_for(lambda: len(outcomes(out)) > first and unfinished_with_checkpoint(out), process)
    kill(process)
    ended = endings(out)
    assert 1 < len(ended) < COUNT
    assert f"{COUNT} trials: {COUNT} finished" in here("resume", "sweep", cwd=tmp_path)
    assert ended.items() <= endings(out).items()
    assert drawn(out) == drawn(baseline)
    assert metrics(out) == metrics(baseline)


def test_a_dry_run_says_what_there_is_to_choose_from(command, tmp_path):
    output = here(*command, "--dry-run", cwd=tmp_path)
    assert "optimizer.lr            from 0.003 to 0.3, log-uniform" in output
    assert "model.size              one of 16" in output
    assert f"{COUNT} trials, which Optuna chooses one after another" in output
    assert not list(tmp_path.iterdir())


def overrides(text, **more):
    return {"steps": 20, "eval_every": 4, "data.name": "text", "data.path": str(text), **more}


@pytest.mark.slow
def test_what_asha_stops_is_pruned_and_sizes_do_not_compete(text, tmp_path):
    space = {"optimizer.lr": tune.loguniform(1e-5, 1e-1), "model.size": tune.choice([16, 32])}
    out = tmp_path / "sweep"
    result = sweep(
        space, out=out, search="optuna", num_samples=12, overrides=overrides(text),
        execution=Execution(scheduler="asha"),
    )  # fmt: skip
    assert result.exit_code == 0
    assert sum(result.outcomes.values()) == 12
    assert set(result.outcomes) == {"finished", "stopped"}
    _, trials = study(out)
    states = {
        run_id: trial.state
        for trial, (_, (run_id, _)) in zip(trials, sorted(drawn(out).items()), strict=True)
    }
    for run_id, outcome in outcomes(out).items():
        early = outcome["outcome"] == "stopped"
        assert states[run_id] == (TrialState.PRUNED if early else TrialState.COMPLETE)
        assert not early or "size 16" in outcome["reason"] or "size 32" in outcome["reason"]


@pytest.mark.slow
def test_a_space_with_fewer_runs_than_asked_for_ends_and_says_so(text, tmp_path, capsys):
    out = tmp_path / "sweep"
    space = {"optimizer.lr": tune.grid_search([1e-2, 3e-2]), "model.size": 16}
    result = sweep(space, out=out, search="optuna", num_samples=5, overrides=overrides(text))
    assert (result.exit_code, dict(result.outcomes)) == (0, {"finished": 2})
    assert "Optuna drew 2 of 5 trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "execution", "sentence"),
    [
        ({"seeds": 2}, {}, "seeds must be 1 for search=optuna"),
        ({"space": {"optimizer.lr": tune.randn(0, 1)}}, {}, "optimizer.lr must be uniform"),
        ({}, {"skip_above": 0.5, "skip_from": "x"}, "a sweep's directory must exist, got"),
        ({}, {"scheduler": "asha", "grace_steps": 500}, "grace_steps must be from 1 to the 20"),
        ({"preset": "lm-tinny"}, {}, "Did you mean lm-tiny"),
    ],
)
def test_refusals_are_sentences_and_leave_nothing(text, tmp_path, how, execution, sentence):
    how = {"space": {"optimizer.lr": tune.loguniform(1e-3, 1e-1)}, **how}
    with pytest.raises(ValueError, match=sentence):
        sweep(
            out=tmp_path / "sweep", search="optuna", num_samples=2, overrides=overrides(text),
            execution=Execution(**execution), **how,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
