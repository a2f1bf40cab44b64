"""An outcome is typed, its objective always finite."""

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
