"""Figure 10: the planted onset is found, with the logit achieved there."""

import dataclasses

import numpy as np
import pytest
from planted import by_name, noise, records

from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.logits.kappa import forced_logits

HOLDS, FAILS, CANNOT_TELL = Verdict

KAPPAS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 1e4)


def forced(onset, *, seeds=(0, 1, 2)):
    """Loses a tenth of what there is to lose near `onset`; logits are four times kappa."""

    def loss(run):
        past = 9 * (run["model.kappa"] / onset) ** -1.5
        return 2.1 + 1.0 / (1 + past) + noise(run, 0.01)

    def logit(run, steps):
        return 4.0 * run["model.kappa"] + 0.0 * steps

    fields = [{"model.kappa": kappa} for kappa in KAPPAS]
    return records(
        fields,
        widths=(32,),
        lrs=(1e-2,),
        seeds=seeds,
        loss=loss,
        columns={"max_attention_logit": logit},
    )


def test_the_onset_and_its_logit_are_found_and_held_against_natural_runs():
    answer = forced_logits({"LM": forced(10.0)}, natural_threshold=300.0, bigram=2.6)
    onset, natural, bigram = by_name(answer).values()
    assert onset.verdict is HOLDS
    assert onset.numbers["kappa"] == pytest.approx(10.0, rel=0.4)
    assert "3 seeds" in onset.sentence
    assert natural.verdict is HOLDS
    assert natural.numbers["value"] == pytest.approx(np.log10(40 / 300), abs=0.15)
    assert bigram.verdict is HOLDS
    assert answer.table["logit_over_kappa"].to_numpy() == pytest.approx(4.0)


def test_each_architecture_has_its_own_onset_and_one_may_have_none():
    many = {"early": forced(3.0), "late": forced(300.0), "never": forced(1e12)}
    answer = forced_logits(many, natural_threshold={"early": 100.0, "late": 100.0})
    found = by_name(answer)
    early, late = (found[f"where forced logits begin to hurt, {n}"] for n in ("early", "late"))
    assert late.numbers["kappa"] / early.numbers["kappa"] == pytest.approx(100, rel=0.6)
    assert found["forced against natural logits, early"].verdict is HOLDS
    assert found["forced against natural logits, late"].verdict is FAILS
    assert found["where forced logits begin to hurt, never"].verdict is FAILS
    assert found["forced against natural logits, never"].verdict is CANNOT_TELL


def test_one_seed_is_wider_and_what_is_missing_cannot_be_told():
    def width(claim):
        return claim.numbers["high"] / claim.numbers["low"]

    one, three = (forced_logits({"LM": forced(10.0, seeds=s)}).claims[0] for s in ((0,), (0, 1, 2)))
    assert width(one) > width(three)
    made = forced(10.0)
    lost = made.trials.assign(reference_loss=np.nan)
    answer = forced_logits({"LM": dataclasses.replace(made, trials=lost)})
    assert {claim.verdict for claim in by_name(answer).values()} == {CANNOT_TELL}
    assert "no reference loss" in answer.claims[0].sentence
    plain = by_name(forced_logits({"LM": records(widths=(32,))}))
    assert {claim.verdict for claim in plain.values()} == {CANNOT_TELL}
    quiet = dataclasses.replace(made, telemetry=made.telemetry[["run_id", "step"]])
    onset, natural, _ = forced_logits({"LM": quiet}).claims
    assert (onset.verdict, natural.verdict) == (HOLDS, CANNOT_TELL)
