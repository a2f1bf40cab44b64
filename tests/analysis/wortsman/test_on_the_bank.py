"""The real records of the frozen bank give figures 1, 2, 9 and 11 as the paper has them."""

from pathlib import Path

import pytest
from planted import by_name

from foretune.analysis.records.bank import read_bank
from foretune.analysis.records.load import Records
from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.curves.loss_curves import loss_curves
from foretune.analysis.wortsman.gradients.gradients import gradient_scale
from foretune.analysis.wortsman.logits.attention_growth import attention_traces
from foretune.analysis.wortsman.logits.logit_law import logit_law
from foretune.tuner.reproduce.wortsman.attention_logits import FIG1

HOLDS, FAILS, CANNOT_TELL = Verdict

TWINS = {"without": {"model.qk_norm": False}, "with": {"model.qk_norm": True}}


@pytest.fixture(scope="module")
def core():
    bank = read_bank(Path(__file__).parents[3] / "benchmarks" / "bank")
    trials = bank.trials[
        (bank.trials["part"] == "core") & bank.trials["size"].isin([16, 32, 64, 128])
    ]
    trials = trials[trials["optimizer.lr"].between(2e-3, 0.5)].drop(columns="part")
    own = bank.telemetry[bank.telemetry["run_id"].isin(trials["run_id"])]
    return {"core": Records(Path(), {}, trials, own, "")}


def test_figure_1(core):
    found = by_name(loss_curves(core, TWINS, questions=FIG1.judge.asks))
    assert found["LR sensitivity, with against without"].verdict is HOLDS
    assert (
        found["the loss at the two highest learning rates, with against without"].verdict is HOLDS
    )
    assert found["LR sensitivity from the best learning rate up and N, without"].verdict is HOLDS
    assert found["log10 of the best learning rate and N, without"].verdict is HOLDS


def test_figure_2(core):
    assert {claim.verdict for claim in by_name(attention_traces(core, TWINS)).values()} == {HOLDS}


def test_figure_9(core):
    answer = logit_law(core, where={"model.qk_norm": False}, at_shares=(0.02, 1.0))
    found = by_name(answer)
    assert found["the critical learning rate and N"].verdict is HOLDS
    assert found["the critical learning rate and N"].numbers["slope"] == pytest.approx(
        -0.5, abs=0.1
    )
    assert (
        abs(found["the critical learning rate of the largest size, held out"].numbers["error_dex"])
        < 0.1
    )


def test_figure_11(core):
    rate, size, *_ = by_name(gradient_scale(core, where={"model.qk_norm": True})).values()
    assert (rate.verdict, size.verdict) == (HOLDS, HOLDS)
