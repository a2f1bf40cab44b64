"""outcome.json: strict JSON whatever the value, and its bytes, whatever the version."""

import json
import math
from pathlib import Path

import pytest

from foretune.tuner.records.outcome_json import RunEnd, Times
from foretune.tuner.training.outcome import Outcome

FROZEN = Path(__file__).parent / "frozen"
FORECAST = {
    "probability": 0.9731, "threshold": 0.9, "step": 20, "by_step": 150, "reason": "logits grow",
    "audited": True,
}  # fmt: skip


def trained():
    """The end of a run of `foretune train`."""
    outcome = Outcome(
        outcome="finished", step=12, reason="all 12 steps done", loss_at_init=6.0435943603515625,
        final_val_loss=4.207268238067627, seconds=1.25, data_sha256="5f" * 32,
        reference_loss=3.070449436565948,
    )  # fmt: skip
    return RunEnd.of("177fd718def9", outcome)


def swept():
    """The end of a trial that its worker opened before the driver knew."""
    outcome = Outcome(
        outcome="diverged", step=57, reason="loss inf", tensor="loss", value=math.inf,
        loss_at_init=2.5, final_val_loss=1.25, seconds=0.5, data_sha256="0a" * 32,
        forecast=FORECAST,
    )  # fmt: skip
    return RunEnd.of("660893e87ddc", outcome, Times(started=1764000000.25, ended=1764000009.5))


@pytest.mark.parametrize(
    ("make", "file"), [(trained, "train_outcome.json"), (swept, "sweep_outcome.json")]
)
def test_the_file_is_what_it_has_been_and_is_read_back(make, file, tmp_path):
    end, frozen = make(), (FROZEN / file).read_bytes()
    end.write(tmp_path)
    assert (tmp_path / "outcome.json").read_bytes() == frozen
    assert RunEnd.read(tmp_path) == end
    end.write(tmp_path)
    assert (tmp_path / "outcome.json").read_bytes() == frozen


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (2.5, 2.5)]
)
def test_it_is_strict_json_whatever_the_value(value, text):
    outcome = Outcome(outcome="diverged", step=7, reason="r", value=value, loss_at_init=5.0)
    facts = RunEnd.of("abc", outcome).to_json()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert (facts["value"], facts["objective"]) == (text, 5.0)
    assert str(RunEnd.from_json(facts).outcome.value) == str(value)


def test_a_run_that_has_not_ended_has_none(tmp_path):
    assert RunEnd.read(tmp_path) is None


def test_the_objective_is_the_one_that_was_told_then():
    facts = {**trained().to_json(), "objective": 4.5}
    assert RunEnd.from_json(facts).objective == 4.5
    assert RunEnd.from_json(facts).to_json() == facts


def test_keys_of_a_newer_version_are_passed_over_and_those_an_older_one_lacks_have_defaults():
    facts = swept().to_json()
    assert RunEnd.from_json({**facts, "carbon": 3, "times": "not ours"}) == swept()
    for name in ("forecast", "reference_loss", "objective", "opened"):
        del facts[name]
    old = RunEnd.from_json(facts)
    assert (old.outcome.forecast, old.outcome.reference_loss, old.objective) == (None, None, 2.5)
    assert old.times == swept().times


@pytest.mark.parametrize("name", ["run_id", "outcome", "step", "reason"])
def test_a_file_that_lacks_what_it_always_had_is_one_sentence(name):
    facts = trained().to_json()
    del facts[name]
    with pytest.raises(ValueError, match=f"^outcome.json must hold {name}, got "):
        RunEnd.from_json(facts)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "outcome.json").write_text('{"run_id": "a"')
    with pytest.raises(ValueError, match=r"outcome.json must be JSON, got a damaged file"):
        RunEnd.read(tmp_path)
