"""Source A's figures by name: what their sweeps run, and what their judges make of real records."""

import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.records.load import Records
from foretune.analysis.wortsman.runs import gather
from foretune.tuner.config.override import dotted
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.bigram import bigram_loss
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.run import plan_part, reproduce
from foretune.tuner.reproduce.wortsman.interventions import NOT_COMPARABLE
from foretune.tuner.reproduce.wortsman.scales import SCALE_OF

SHORT = {
    "steps": 4,
    "eval_every": 4,
    "telemetry_every": 2,
    "schedule.warmup_steps": 1,
    "data.name": "text",
    "data.validation_sequences": 8,
}
MAIN = [f"fig{n}" for n in range(1, 14)]
APPENDIX = ["figC1", *(f"figE{n}" for n in range(1, 16))]
SOURCE_A = [*MAIN, *APPENDIX, "epsilon-onset", "interventions"]


def test_every_figure_is_there_at_every_scale():
    assert list(FIGURES)[: len(SOURCE_A)] == SOURCE_A
    for name in (*MAIN, *APPENDIX):
        assert FIGURES[name].parts.keys() == SCALE_OF.keys()


@cache
def _planted_trials(label: str) -> pd.DataFrame:
    (part, *_) = (f.parts["tiny"][label] for f in FIGURES.values() if label in f.parts["tiny"])
    runs = plan_part(part, label, seeds=1, overrides={}).runs(check_data=False)
    return pd.DataFrame([{**dotted(run), **planted(i, run)} for i, run in enumerate(runs)])


def planted_trials(label: str) -> pd.DataFrame:
    """The runs of a sweep, which figures share, as its table has them once they have ended."""
    return _planted_trials(label).copy()


@pytest.mark.parametrize("name", SOURCE_A)
def test_each_run_of_a_sweep_belongs_to_the_variant_that_made_it(name):
    """Every variant has as many runs as its grid, and none is left over."""
    for label, part in FIGURES[name].parts["tiny"].items():
        if not part.variants:
            continue
        trials = planted_trials(label)
        telemetry = pd.DataFrame({"run_id": trials["run_id"], "step": 0})
        found = gather({label: Records(Path(), {}, trials, telemetry, "")}, part.variants)
        counts = found.trials.groupby("variant").size()
        assert set(counts.index) == set(part.variants)
        assert counts.sum() == len(trials)


def planted(index: int, run) -> dict[str, object]:
    return {
        "run_id": str(index),
        "size": float(run.model.width),
        "n_params": 12.0 * run.model.depth * run.model.width**2,
        "outcome": "finished",
        "diverged": False,
        "last_step": 300.0,
        "lr": run.optimizer.lr,
        "final_val_loss": 2.0,
        "loss_at_init": 5.0,
        "reference_loss": 3.0,
    }


def test_paper_scale_is_the_published_setting():
    runs = [
        run
        for label, part in FIGURES["fig1"].parts["paper"].items()
        for run in plan_part(part, label, seeds=1, overrides={}).runs(check_data=False)
    ]
    assert {run.steps for run in runs} == {100_000}
    assert {(run.batch_size, run.data.sequence_length) for run in runs} == {(256, 512)}
    assert {run.data.name for run in runs} == {"c4"}
    assert {run.model.vocab_size for run in runs} == {32101}
    assert {run.schedule.warmup_steps for run in runs} == {5000}
    assert {run.precision for run in runs} == {"bfloat16"}
    assert {run.loss.z_loss for run in runs} == {1e-4}
    assert {run.model.qk_norm for run in runs} == {False, True}
    assert sorted({run.optimizer.lr for run in runs}) == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
    assert max(run.model.width for run in runs) == 4096
    assert {run.data.tokens for run in runs} == {100_000 * 256 * 512}


def test_interventions_that_change_what_a_learning_rate_means_are_in_the_table():
    variants = FIGURES["interventions"].parts["tiny"]["interventions"].variants
    assert set(NOT_COMPARABLE) < set(variants)
    assert variants["none"] == {}
    base = resolve("lm-tiny", size=32, overrides={"steps": 300})
    assert variants["long-warmup"] == {"schedule.warmup_steps": 75}
    assert variants["qk-layernorm+z-loss"] == {"model.qk_norm": True, "loss.z_loss": 1e-4}
    assert dotted(base)["schedule.warmup_steps"] == 15


@pytest.mark.slow
def test_figures_that_share_a_sweep_run_it_once_and_each_writes_its_answer(text, tmp_path, capfd):
    changes = {**SHORT, "data.path": str(text), "model.size": 16}
    call = {"out": tmp_path, "seeds": 1, "overrides": changes, "command": "it"}
    assert reproduce(["fig1", "fig2", "fig11"], **call) == 0
    printed = capfd.readouterr().out
    assert printed.count("logits -> ") == 1
    for name in ("fig1", "fig2", "fig11"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        claims = pd.read_csv(tmp_path / f"{name}_claims.csv")
        assert claims["sentence"].str.startswith("Source A: ").all()
        assert f"\n{name}\n" in printed
    runs = list((tmp_path / "logits" / "runs").iterdir())
    assert len(runs) == 10
    with pytest.raises(ValueError, match=r"asked for, got one with another overrides; choose"):
        reproduce(["fig1"], **{**call, "overrides": {**changes, "steps": 5}})


def test_a_bigram_model_is_counted_with_one_pseudo_count(tmp_path):
    """Against a table of counts, filled pair by pair."""
    rng = np.random.default_rng(0)
    tokens = rng.choice(4, size=4000, p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint16)
    tokens[1::2] = (tokens[::2] + 1) % 4
    np.save(tmp_path / "tokens.npy", tokens)
    data = Data(
        name="tokens",
        path=str(tmp_path / "tokens.npy"),
        vocab_size=5,
        sequence_length=9,
        validation_sequences=3,
    )
    train, held_out = tokens[:3800].astype(int), tokens[3800:].astype(int)
    table, singles = np.zeros((5, 5)), np.zeros(5)
    for a, b in pairwise(train):
        table[a, b] += 1
        singles[a] += 1
    unigram = (singles + 1) / (singles.sum() + 5)
    chance = (table + unigram) / (singles[:, None] + 1)
    assert chance.sum(1) == pytest.approx(np.ones(5))
    starts = [0, 95, 190]
    pairs = [(held_out[s + t], held_out[s + t + 1]) for s in starts for t in range(9)]
    expected = -sum(math.log(chance[a, b]) for a, b in pairs) / len(pairs)
    assert bigram_loss(data) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("names", "overrides", "sentence"),
    [
        ([], {}, r"^FIGURE must name what to reproduce, got none; see foretune list figures\.$"),
        (
            ["interventions"],
            {"steps": 600},
            "^overrides must leave steps to the reproduction, got",
        ),
        (["figE7"], {"steps": 600}, "the sweep steps depends on it"),
        (["fig5"], {"steps": 600}, "the sweep warmup depends on it"),
        (["fig3"], {"loss.z_loss": 1e-4}, "the sweep outputs depends on it"),
        (["fig7"], {"model.width": 32}, "the sweep ladders depends on it"),
        (["fig1"], {"seed": 3}, "seeds chooses it; leave it out"),
    ],
)
def test_a_setting_that_would_undo_a_comparison_is_refused(names, overrides, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        reproduce(names, out=tmp_path / "out", overrides=overrides, dry_run=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*MAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in APPENDIX)],
)
def test_every_judge_knows_the_variants_of_its_sweeps(name):
    """It gets runs without a measured number, and says of every claim that it can't tell."""
    parts = FIGURES[name].parts["tiny"]
    records = {}
    for label in parts:
        trials = planted_trials(label)
        telemetry = pd.DataFrame({"run_id": trials["run_id"], "step": 0, "loss": 2.0})
        trials["run_id"] = telemetry["run_id"] = label + trials["run_id"]
        records[label] = Records(Path(), {}, trials, telemetry, "")
    judge = FIGURES[name].judge
    assert judge is not None
    assert judge(records, parts)
