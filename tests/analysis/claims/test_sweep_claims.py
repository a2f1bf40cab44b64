import dataclasses

import numpy as np
import pytest
from synthetic import start_sweep, write_sweep

from foretune import analysis
from foretune.analysis.across_scale.family_laws import choose_family, law_of
from foretune.analysis.claims.sweep_claims import claims, slope_claim
from foretune.analysis.measures.critical_lr import critical_table
from foretune.analysis.stats.verdict import Verdict

HOLDS, FAILS, CANNOT_TELL = Verdict


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
    assert {name: claim.verdict for name, claim in found.items()} == dict.fromkeys(found, HOLDS)
    assert "model.qk_norm=true lowers LR sensitivity" in found["sensitivity with the cure"].sentence
    assert "to the power -0.49" in found["the law of the critical learning rate"].sentence
    numbers = found["max_attention_logit and the learning rate"].numbers
    assert numbers == pytest.approx({"size 16": 1.0, "size 32": 1.0, "size 64": 1.0})


def test_the_opposite_data_give_the_opposite_sentences(records):
    found = judged(flipped(records))
    worse = found["sensitivity with the cure"]
    assert worse.verdict is FAILS
    assert "raises LR sensitivity" in worse.sentence
    loss = found["loss at the two highest learning rates"]
    assert loss.verdict is FAILS
    assert "raises the final loss (nats) at learning rate 0.1 and 0.3" in loss.sentence


def test_logits_that_shrink_are_said_to(records):
    telemetry = records.telemetry.copy()
    telemetry["max_attention_logit"] = 1e6 / telemetry["max_attention_logit"]
    found = judged(dataclasses.replace(records, telemetry=telemetry))
    claim = found["max_attention_logit and the learning rate"]
    assert claim.verdict is FAILS
    assert "does not grow" in claim.sentence
    assert found["max_attention_logit and the number of parameters"].verdict is FAILS


def test_no_difference_is_cannot_tell(records):
    trials = records.trials.copy()
    trials["final_val_loss"] = 2.0 + 0.01 * np.log10(trials["optimizer.lr"]) ** 2
    found = judged(dataclasses.replace(records, trials=trials))
    for name in ("sensitivity with the cure", "loss at the two highest learning rates"):
        assert found[name].verdict is CANNOT_TELL
        assert "does not clearly change" in found[name].sentence
        assert "lower beyond the noise at 0 of 3 sizes, higher at 0" in found[name].sentence
    assert found["sensitivity and size"].verdict is CANNOT_TELL


def test_a_rising_or_uncertain_law_is_said_to_be_one(records):
    table = critical_table(records.trials, records.telemetry, threshold=100.0)
    law = law_of(table, choose_family(records, table, None), 0.9)
    rising = dataclasses.replace(law, slope=0.4, slope_low=0.2, slope_high=0.6)
    assert slope_claim(rising).verdict is FAILS
    assert "rises with the number of parameters" in slope_claim(rising).sentence
    unclear = dataclasses.replace(law, slope_low=-0.9, slope_high=0.1)
    assert slope_claim(unclear).verdict is CANNOT_TELL
    assert "does not clearly change" in slope_claim(unclear).sentence


def test_two_sizes_of_three_are_no_verdict(records):
    telemetry = records.telemetry.copy()
    low = telemetry["run_id"] == "w64-lr0.1-s0-none"
    assert low.any()
    telemetry.loc[low, "max_attention_logit"] *= 1e-9
    found = judged(dataclasses.replace(records, telemetry=telemetry))
    claim = found["max_attention_logit and the learning rate"]
    expected = {"size 16": 1.0, "size 32": 1.0, "size 64": 0.4}
    assert claim.numbers == pytest.approx(expected)
    assert claim.verdict is CANNOT_TELL
    assert "0.8 or more at 2 of 3 curves" in claim.sentence
    assert "three quarters" in claim.sentence


def test_a_best_rate_at_the_top_of_the_grid_is_said_to_be_there(tmp_path):
    """Two sizes were run, so `one size` would be false."""
    root = write_sweep(tmp_path / "s", widths=(16, 32), lrs=(1e-3, 3e-3), qk_norms=(False,))
    claim = judged(analysis.load(root))["sensitivity and size"]
    assert claim.verdict is CANNOT_TELL
    assert "one size" not in claim.sentence
    assert "highest of the grid at size 16 (0.003), size 32 (0.003)" in claim.sentence
    assert "widen the grid upwards" in claim.sentence


def test_a_size_that_is_left_out_is_named(records):
    trials = records.trials
    kept = trials[(trials["size"] != 64) | (trials["optimizer.lr"] <= 3e-3)]
    kept = kept[~kept["model.qk_norm"]]
    claim = judged(dataclasses.replace(records, trials=kept))["sensitivity and size"]
    assert claim.verdict is not CANNOT_TELL
    assert "fewer than two learning rates were run at size 64" in claim.sentence


def test_a_cure_that_does_not_vary_is_not_spoken_of(tmp_path):
    root = write_sweep(tmp_path / "s", qk_norms=(False,))
    found = judged(analysis.load(root))
    assert not any("qk_norm" in claim.sentence for claim in found.values())
    assert found["max_attention_logit and the learning rate"].verdict is HOLDS


def test_a_signal_that_no_run_recorded_is_not_spoken_of(tmp_path):
    root = write_sweep(tmp_path / "s", qk_norms=(False,), logits=False)
    assert set(judged(analysis.load(root))) == {"sensitivity and size"}


def test_missing_data_are_cannot_tell(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2, 3e-2), qk_norms=(False,))
    found = judged(analysis.load(root))
    assert {claim.verdict for claim in found.values()} == {CANNOT_TELL}
    assert all(claim.sentence.startswith("Cannot tell") for claim in found.values())
    empty = judged(analysis.load(start_sweep(tmp_path / "empty")))
    assert {claim.verdict for claim in empty.values()} == {CANNOT_TELL}
