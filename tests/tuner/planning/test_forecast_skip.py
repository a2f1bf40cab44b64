"""Runs that the law of an ended sweep forecasts to be unstable aren't begun, and it is said."""

import json

import pytest
from commands import call
from learnt_sweep import LRS, STEPS, described, write_learnt
from ray import tune

from foretune.analysis import critical_table, load, sensitivity_table
from foretune.tuner.cli.end_table import stops
from foretune.tuner.planning.execution import Execution
from foretune.tuner.planning.forecast_skip import skips
from foretune.tuner.sweeps.sweep import resume, sweep
from foretune.tuner.training.outcome import NO_LOSS


@pytest.fixture(scope="module")
def learnt(text, tmp_path_factory):
    return write_learnt(tmp_path_factory.mktemp("learnt"), text)


def execution(learnt, above=0.95):
    return Execution(skip_above=above, skip_from=str(learnt))


def test_what_the_law_forecasts_to_be_unstable_is_skipped_and_the_rest_is_not(text, learnt):
    runs = described(text, [(96, lr) for lr in LRS])
    ends, sentences = skips(runs, execution(learnt))
    rates = {r.run_id: r.run.optimizer.lr for r in runs}
    # The law: 0.05 (330,000 / 10,000)^-0.5 = 0.009.
    assert {rates[name] for name in ends} == {3e-2, 1e-1, 3e-1}
    for name, end in ends.items():
        n_params = next(run.n_params for run in runs if run.run_id == name)
        assert (end.outcome.outcome, end.outcome.step) == ("stopped", 0)
        assert end.objective == NO_LOSS
        assert end.outcome.forecast["probability"] > 0.95
        assert end.outcome.reason.startswith(
            "skipped before it started: forecast unstable with probability above 0.999 (more than "
            f"0.95) at {n_params:,} parameters and learning rate {rates[name]:g}: "
            f"max_attention_logit is expected to reach 100 at "
        )
        json.dumps(end.to_json(), allow_nan=False)
    assert sentences[0] == (
        f"skip_above 0.95 does not start 3 of 5 runs, which the law of {learnt} forecasts to be "
        f"unstable:"
    )
    assert sentences[1].startswith("  size 96: 3 at learning rates 0.03, 0.1, 0.3, the least ")
    assert len(sentences) == 2


def test_runs_of_which_the_law_cannot_tell_are_run_and_it_says_why(text, learnt):
    fixed = described(text, [(96, 3e-1), (96, 1e-1)], **{"model.qk_norm": True})
    longer = described(text, [(96, 3e-1)], steps=40)
    far = described(text, [(512, 3e-1)])
    ends, sentences = skips([*fixed, *longer, *far], execution(learnt))
    assert ends == {}
    first, *rest = sentences
    assert first.startswith("skip_above 0.95 does not start 0 of 4 runs, ")
    assert rest[0] == (
        "skip_above 0.95 cannot tell for 2 of 4 runs, which are run: no family of runs there has "
        "the same model.qk_norm."
    )
    assert "has the same steps" in rest[1]
    assert "cannot tell for 1 of 4 runs" in rest[2]
    assert "64" in rest[2]


def test_without_it_nothing_is_read_and_nothing_said():
    assert skips([], Execution()) == ({}, [])


def test_what_is_no_sweep_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="a sweep's directory must exist, got"):
        sweep({"optimizer.lr": 0.1}, out=tmp_path / "out", execution=execution(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_begins_the_others_alone_and_its_records_say_so(
    text, learnt, tmp_path, capfd, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = sweep(
        {"optimizer.lr": tune.grid_search([1e-2, 3e-1]), "model.size": 64},
        out=tmp_path / "out",
        overrides={
            "steps": STEPS, "eval_every": 10, "data.name": "text", "data.path": str(text),
            "data.validation_sequences": 8,
        },
        execution=Execution(skip_above=0.95, skip_from=str(learnt), scheduler="asha"),
    )  # fmt: skip
    assert result.outcomes == {"finished": 1, "stopped": 1}
    assert result.exit_code == 0
    output = capfd.readouterr().out
    assert "does not start 1 of 2 runs" in output
    assert "[2/2]" in output
    records = load(result.directory)
    row = records.trials.set_index("outcome").loc["stopped"]
    assert (row["optimizer.lr"], row["last_step"], row["forecast_step"]) == (3e-1, 0, 0)
    assert not (result.directory / "runs" / row["run_id"] / "metrics.jsonl").exists()
    assert stops(records.trials) == (
        f"forecast: 0 stopped, 1 not started; {STEPS} of {2 * STEPS} steps (50%) saved"
    )
    (row,) = sensitivity_table(records.trials).to_dict("records")
    assert "1 stopped early" in row["status"]
    critical_table(records.trials, records.telemetry, threshold=100.0)
    assert resume(result.directory).outcomes == result.outcomes


def test_a_dry_run_says_what_would_not_be_started(text, learnt, tmp_path, capsys):
    settings = f"steps={STEPS} eval_every=10 data.name=text data.path='{text}'"
    line = (
        f"sweep random-lr --sizes 64 --out '{tmp_path / 'out'}' --skip-above 0.95 --skip-from "
        f"'{learnt}' --dry-run --drop model.qk_norm optimizer.weight_decay "
        f"--set {settings} data.validation_sequences=8"
    )
    code, out, _ = call(capsys, f"{line} --grid optimizer.lr=1e-2,3e-1")
    assert code == 0
    rows = out.splitlines()
    marked = [row for row in rows if row.endswith("  not to be started")]
    assert [row.split("FLOP  ")[1] for row in marked] == ["lr=0.3  not to be started"]
    assert any("--skip-above 0.95 does not start 1 of 2 runs" in row for row in rows)
    assert any(row.startswith("1 trials, ") for row in rows)
    _, out, _ = call(capsys, f"{line} --search optuna --num-samples 4")
    assert "Of random draws: --skip-above 0.95 does not start " in out
    assert "4 trials, which Optuna chooses one after another" in out
    assert not list(tmp_path.iterdir())
