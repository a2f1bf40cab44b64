"""An outcome is typed, its objective always finite, its record JSON."""

import json
import math

import pytest

from foretune.tuner.training.outcome import NO_LOSS, OUTCOMES, Outcome, objective


def outcome(kind: str = "finished", **fields) -> Outcome:
    given = {"step": 7, "reason": "r", "loss_at_init": 5.0, "final_val_loss": 3.0, **fields}
    return Outcome(outcome=kind, **given)


@pytest.mark.parametrize(
    ("loss_at_init", "val_loss", "lost", "expected"),
    [
        (5.0, 3.0, False, 3.0),  # The newest validation loss,
        (5.0, 9.0, False, 5.0),  # never above the loss at init.
        (5.0, None, False, 5.0),  # Before the first one after init.
        (5.0, 3.0, True, 5.0),  # Lost: what was reached doesn't count.
        (5.0, None, True, 5.0),
        (None, None, False, NO_LOSS),
        (None, None, True, NO_LOSS),
    ],
)
def test_objective_is_the_smaller_loss_and_the_loss_at_init_once_lost(
    loss_at_init, val_loss, lost, expected
):
    assert objective(loss_at_init, val_loss, lost=lost) == expected
    assert math.isfinite(objective(loss_at_init, val_loss, lost=lost))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("finished", 3.0), ("stopped", 3.0), ("diverged", 5.0), ("failed", 5.0)],
)
def test_each_kind_of_end_has_its_objective(kind, expected):
    assert outcome(kind).objective == expected
    assert outcome(kind).diverged == (kind == "diverged")


def test_there_are_four_kinds_and_no_other():
    assert set(OUTCOMES) == {"finished", "diverged", "stopped", "failed"}
    with pytest.raises(ValueError, match=r"^outcome must be one of finished, .* got 'exploded'.$"):
        outcome("exploded")


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_the_record_is_strict_json_whatever_the_value(value, text):
    record = outcome("diverged", tensor="loss", value=value).record("abc")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["value"] == text
    assert (record["run_id"], record["objective"], record["step"]) == ("abc", 5.0, 7)
    assert (record["outcome"], record["tensor"]) == ("diverged", "loss")


def test_a_finite_or_absent_value_stays_as_it_is():
    assert outcome("diverged", value=2.5).record("a")["value"] == 2.5
    assert outcome().record("a")["value"] is None
