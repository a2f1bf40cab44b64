"""A figure's sweeps are run and judged, and go on where they stopped."""

import io
from contextlib import redirect_stdout
from dataclasses import replace

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from foretune.analysis.evaluation.splits import SPLITS, split_runs
from foretune.analysis.records.bank import read_bank
from foretune.tuner.config.override import dotted
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.figure import SCALES
from foretune.tuner.reproduce.run import plan_part, reproduce
from foretune.tuner.tracking.sender import sync

SHORT = {
    "steps": 6,
    "eval_every": 3,
    "schedule.warmup_steps": 1,
    "data.name": "text",
    "data.validation_sequences": 8,
    "model.size": 16,
}


OTHERS = [name for name in FIGURES if name.startswith("ternary-")] + ["bank"]
SOURCE_A = [name for name in FIGURES if name not in OTHERS]
TOGETHER = [tuple(SOURCE_A), *((name,) for name in OTHERS)]
"""Source A's figures share sweeps, so that one call plans each sweep once."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale",
    [s if s == "tiny" else pytest.param(s, marks=pytest.mark.slow) for s in SCALES],
)
@pytest.mark.parametrize("names", TOGETHER)
def test_every_figure_can_be_planned_at_each_of_its_scales(names, scale, capsys):
    there = [name for name in names if scale in FIGURES[name].parts]
    assert not there or reproduce(there, out=None, scale=scale, seeds=1, dry_run=True) == 0
    labels = {label for name in there for label in FIGURES[name].parts[scale]}
    printed = capsys.readouterr().out
    assert {label for label in labels if f"\n{label}: " not in printed} == set()
    assert not there or "FLOP" in printed


def test_source_as_figures_mean_the_same_sweep_by_the_same_name():
    for scale in SCALES:
        sweeps = {}
        for name in SOURCE_A:
            for label, part in FIGURES[name].parts.get(scale, {}).items():
                assert sweeps.setdefault(label, part) == part, label


@pytest.fixture(scope="module")
def reproduced(text, tmp_path_factory):
    """The arguments of a figure that has run once, and what it printed."""
    changes = {**SHORT, "data.path": str(text), "optimizer.lr": 1e-2}
    out, output = tmp_path_factory.mktemp("reproduced"), io.StringIO()
    call = {"out": out, "seeds": 1, "overrides": changes, "command": "the command"}
    with redirect_stdout(output):
        assert reproduce(["ternary-decay"], **call) == 0
    return call, output.getvalue()


@pytest.mark.slow
def test_a_figure_is_run_judged_and_continued_by_the_same_call(reproduced, capfd):
    call, first = reproduced
    out = call["out"]
    assert "20/20" in first
    assert "can't tell" in first or "holds" in first or "does not hold" in first
    claims = pd.read_csv(out / "lm_claims.csv")
    assert "best decay" in set(claims["name"])
    assert (out / "lm.png").stat().st_size > 10_000
    assert len(pd.read_csv(out / "lm.csv")) == 4 * 5
    victim = next((out / "lm" / "runs").glob("*/outcome.json"))
    victim.unlink()
    assert reproduce(["ternary-decay"], **call) == 0
    assert "[20/20]" in capfd.readouterr().out
    assert victim.exists()


@pytest.mark.slow
def test_more_seeds_are_added_to_what_is_there_and_fewer_are_no_reason_to_refuse(reproduced, capfd):
    call, _ = reproduced
    out = call["out"]
    before = {path: path.read_bytes() for path in (out / "lm" / "runs").glob("*/*.json")}
    assert reproduce(["ternary-decay"], **{**call, "seeds": 2}) == 0
    printed = capfd.readouterr().out
    assert "2 seeds instead of 1: 20 more trials" in printed
    assert "[40/40]" in printed
    assert {path: path.read_bytes() for path in before} == before
    claims = pd.read_csv(out / "lm_claims.csv")
    assert {"best decay", "less sensitive to decay"} <= set(claims["name"])
    record = SweepRecord.read(out / "lm")
    assert (record.plan["seeds"], record.trials) == (2, 40)
    assert len(pd.read_csv(out / "lm.csv")) == 4 * 5 * 2
    assert sync(out / "lm") == ""  # What a busy machine left over, or nothing.
    runs = MlflowClient(f"sqlite:///{out}/lm/mlflow.db").search_runs(["1"])
    assert len(runs) == 41
    (parent,) = (run for run in runs if run.data.tags.get("foretune.kind") == "sweep")
    assert (parent.data.tags["foretune.seeds"], parent.data.tags["foretune.trials"]) == ("2", "40")
    assert reproduce(["ternary-decay"], **call) == 0
    assert "2 seeds are there, and all of them count" in capfd.readouterr().out
    assert len(pd.read_csv(out / "lm.csv")) == 4 * 5 * 2


@pytest.mark.slow
def test_the_bank_is_frozen_once_every_part_has_run(text, tmp_path, capfd, monkeypatch):
    parts = FIGURES["bank"].parts["tiny"]
    few = {"core": replace(parts["core"], overrides={}), "text": parts["text"]}
    monkeypatch.setitem(FIGURES, "bank", replace(FIGURES["bank"], parts={"tiny": few}))
    changes = {**SHORT, "data.path": str(text), "optimizer.lr": 1e-2}
    assert reproduce(["bank"], out=tmp_path, seeds=1, overrides=changes, command="it") == 0
    assert "frozen in" in capfd.readouterr().out
    bank = read_bank(tmp_path / "bank")
    assert bank.facts["command"] == "it"
    assert set(bank.trials["part"]) <= {"core", "text"}
    assert set(bank.trials["model.qk_norm"]) == {False, True}
    assert (bank.trials["outcome"] == "finished").all()


@pytest.mark.slow
def test_every_run_of_the_bank_has_a_split_and_searches_have_their_twins():
    rows = []
    for name, part in FIGURES["bank"].parts["tiny"].items():
        for run in plan_part(part, name, seeds=3, overrides={}).runs():
            rows.append({**dotted(run), "part": name, "size": run.model.width})
    trials = pd.DataFrame(rows)
    split = split_runs(trials)
    assert set(split) == set(SPLITS)
    assert len(trials) > 1000
    drawn = trials[trials["part"].str.startswith("random")]
    twins = drawn.groupby(["part", "seed"])
    assert set(twins.size()) == {3}
    assert set(twins["model.qk_norm"].nunique()) == {2}
    assert (twins["optimizer.lr"].max() / twins["optimizer.lr"].min()).between(2.9, 3.1).all()


@pytest.mark.parametrize(
    ("name", "scale", "sentence"),
    [
        ("ternary-wdth", "tiny", "Did you mean ternary-width"),
        ("ternary-lm", "paper", "neither its architectures nor its settings"),
        ("ternary-lm", "huge", "^scale must be one of tiny, small, paper"),
    ],
)
def test_what_can_not_be_reproduced_is_one_sentence(name, scale, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        reproduce([name], out=tmp_path / "new", scale=scale)
    assert not (tmp_path / "new").exists()
