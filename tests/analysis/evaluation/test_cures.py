"""Which fix a run wants: recovered from twins whose truth is known, and said with a reason."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_sweep

from foretune.analysis import load
from foretune.analysis.evaluation.backtest import clusters_of, context_of, histories
from foretune.analysis.evaluation.cures import (
    SHARE,
    advise,
    advise_sweep,
    fit_cure,
    read_cures,
    write_cures,
)
from foretune.analysis.inside_run.features import Trace
from foretune.analysis.measures.excess import WORTH
from foretune.analysis.measures.twins import FIXES, twins_of
from foretune.analysis.records.bank import read_bank

BANK = Path(__file__).parents[3] / "benchmarks" / "bank"
LRS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cures")
    return load(write_sweep(folder / "s", lrs=LRS, seeds=(0, 1, 2), noise=0.05))


def test_a_twin_differs_in_one_thing(records):
    pairs = twins_of(records.trials, "qk-layernorm")
    assert len(pairs) == len(records.trials) / 2
    assert not pairs["model.qk_norm"].any()
    losses = records.trials.set_index("run_id")["final_val_loss"]
    capped = np.fmin(losses, 3.12)
    run = pairs.iloc[-1]
    twin = run["run_id"].replace("none", "qk")
    assert run["benefit"] == pytest.approx(capped[run["run_id"]] - capped[twin])
    slower = twins_of(records.trials, "a third of the learning rate")
    assert (slower["optimizer.lr"] > 1e-3).all()
    assert len(slower) == len(records.trials) * 5 / 6


def test_the_rule_finds_what_a_fix_is_worth(records):
    pairs = twins_of(records.trials, "qk-layernorm")
    cure = fit_cure(pairs, records.telemetry, clusters_of(records.trials), fix="qk-layernorm")
    assert (cure.twins, cure.worth_it) == (len(pairs), (pairs["benefit"] > WORTH).sum())
    worth = pairs.set_index("run_id")["benefit"] > WORTH
    worthy = {}
    for trial, history in histories(pairs, records.telemetry):
        seen = history[history["step"] < SHARE * trial["steps"]]
        worthy[trial["run_id"]] = cure.judge(Trace.of(seen), context_of(trial)).worth
    flagged = pd.Series(worthy).loc[worth.index]
    assert (flagged & worth).sum() >= 0.95 * flagged.sum()
    assert (flagged & worth).sum() >= 0.85 * worth.sum()


def test_rules_are_stored_and_read_back(records, tmp_path):
    pairs = twins_of(records.trials, "qk-layernorm")
    cure = fit_cure(pairs, records.telemetry, clusters_of(records.trials), fix="qk-layernorm")
    write_cures([cure], tmp_path / "cures.json")
    assert read_cures(tmp_path / "cures.json") == [cure]


def test_shipped_rules_advise_every_fix_that_a_run_lacks(records):
    assert [cure.fix for cure in read_cures()] == [*FIXES]
    trial, history = next(
        (t, h)
        for t, h in histories(records.trials, records.telemetry)
        if t["optimizer.lr"] == 0.3 and not t["model.qk_norm"]
    )
    context = context_of(trial)
    assert {advice.fix for advice in advise(history, context)} == set(FIXES)
    fixed = advise(history, {**context, "model.qk_norm": True})
    assert [advice.fix for advice in fixed] == ["a third of the learning rate"]
    bare = advise(history.drop(columns="max_attention_logit"), context)
    assert all(math.isnan(advice.probability) and not advice.worth for advice in bare)


@pytest.mark.slow
def test_a_sweep_without_twins_is_told_the_likeliest_fix():
    """On real runs: those of the bank's core without qk-layernorm, width 128 the largest."""
    bank = read_bank(BANK)
    core = bank.trials[bank.trials["part"].eq("core") & ~bank.trials["model.qk_norm"].astype(bool)]
    text = advise_sweep(core, bank.telemetry, lr=0.1)
    assert text.startswith("qk-layernorm, worth more than 0.1 nats with probability ")
    assert "of the run of size 128 at 0.1 (largest attention logit " in text
    assert advise_sweep(core, bank.telemetry) == advise_sweep(core, bank.telemetry, lr=1.0) != ""
    assert advise_sweep(core, bank.telemetry, lr=3e-3) == ""
    assert advise_sweep(core.iloc[:0], bank.telemetry) == ""
