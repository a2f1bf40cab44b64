import dataclasses

import numpy as np
import pytest
from synthetic import start_sweep, write_sweep

import analysis
from analysis.claims import claims, slope_claim
from analysis.critical import critical_table
from analysis.prediction import choose_family, law_of


def judged(records):
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    law = law_of(table, choose_family(records, table, None), 0.9)
    return {claim.name.split(" (")[0]: claim for claim in claims(records, law)}


def flipped(records):
    """The same runs with the roles of the twins exchanged."""
    trials = records.trials.copy()
    trials["model.qk_norm"] = ~trials["model.qk_norm"]
    return dataclasses.replace(records, trials=trials)


@pytest.fixture(scope="module")
def records(sweep):
    return analysis.load(sweep)


def test_the_story_holds_on_data_that_show_it(records):
    found = judged(records)
    assert {name: claim.holds for name, claim in found.items()} == dict.fromkeys(found, True)
    assert "model.qk_norm=true lowers LR sensitivity" in found["sensitivity with the cure"].sentence
    assert "to the power -0.49" in found["the law of the critical learning rate"].sentence
    numbers = found["max_attention_logit and the learning rate"].numbers
    assert numbers == pytest.approx({"size 16": 1.0, "size 32": 1.0, "size 64": 1.0})


def test_the_opposite_data_give_the_opposite_sentences(records):
    found = judged(flipped(records))
    worse = found["sensitivity with the cure"]
    assert worse.holds is False
    assert "raises LR sensitivity" in worse.sentence
    loss = found["loss at the two highest learning rates"]
    assert loss.holds is False
    assert "raises the final loss at learning rate 0.1 and 0.3" in loss.sentence


def test_logits_that_shrink_are_said_to(records):
    telemetry = records.telemetry.copy()
    telemetry["max_attention_logit"] = 1e6 / telemetry["max_attention_logit"]
    found = judged(dataclasses.replace(records, telemetry=telemetry))
    claim = found["max_attention_logit and the learning rate"]
    assert claim.holds is False
    assert "does not grow" in claim.sentence
    assert found["max_attention_logit and the number of parameters"].holds is False


def test_no_difference_is_cannot_tell(records):
    trials = records.trials.copy()
    trials["final_val_loss"] = 2.0 + 0.01 * np.log10(trials["optimizer.lr"]) ** 2
    found = judged(dataclasses.replace(records, trials=trials))
    for name in ("sensitivity with the cure", "loss at the two highest learning rates"):
        assert found[name].holds is None
        assert "within the seed noise" in found[name].sentence
    assert found["sensitivity and size"].holds is None


def test_a_rising_or_uncertain_law_is_said_to_be_one(records):
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    law = law_of(table, choose_family(records, table, None), 0.9)
    rising = dataclasses.replace(law, slope=0.4, slope_low=0.2, slope_high=0.6)
    assert slope_claim(rising).holds is False
    assert "rises with the number of parameters" in slope_claim(rising).sentence
    unclear = dataclasses.replace(law, slope_low=-0.9, slope_high=0.1)
    assert slope_claim(unclear).holds is None
    assert "does not clearly change" in slope_claim(unclear).sentence


def test_missing_data_are_cannot_tell(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2, 3e-2), qk_norms=(False,))
    found = judged(analysis.load(root))
    assert {claim.holds for claim in found.values()} == {None}
    assert all(claim.sentence.startswith("Cannot tell") for claim in found.values())
    empty = judged(analysis.load(start_sweep(tmp_path / "empty")))
    assert {claim.holds for claim in empty.values()} == {None}
