"""Progress lines: what ended, how many are left, how long that takes."""

import io
import time

import pytest

from foretune.tuner.sweeps import progress as module
from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.training.outcome import Outcome

FINISHED = Outcome(outcome="finished", step=20, reason="all 20 steps done", final_val_loss=3.5)


def after(progress, seconds):
    """The same progress as if it had begun `seconds` ago."""
    progress._started = time.monotonic() - seconds
    return progress


def test_nothing_is_known_before_anything_is_done():
    progress = Progress({"a": 1.0, "b": 1.0}, stream=io.StringIO())
    assert progress.seconds_left() is None
    progress.started("a")
    assert progress.seconds_left() is None


def test_time_left_is_the_work_left_at_the_rate_so_far():
    progress = after(Progress({"a": 1.0, "b": 3.0}, stream=io.StringIO()), 10)
    progress.started("a")
    progress.ended("a", "lr=1", FINISHED)
    assert progress.seconds_left() == pytest.approx(30, rel=0.01)
    progress.started("b")
    progress.reported("b", 0.5)
    assert progress.seconds_left() == pytest.approx(10 * 1.5 / 2.5, rel=0.01)
    progress.ended("b", "lr=2", FINISHED)
    assert progress.seconds_left() == 0


def test_earlier_runs_of_a_resume_count_as_done_but_not_as_speed():
    stream = io.StringIO()
    progress = after(Progress({"a": 1.0, "b": 1.0}, done=8, stream=stream), 10)
    progress.ended("a", "lr=1", FINISHED)
    assert progress.seconds_left() == pytest.approx(10, rel=0.01)
    assert stream.getvalue().startswith("[ 9/10] 0:10, about 0:10 left  lr=1: finished, loss 3.500")


def test_trials_to_be_drawn_count_as_much_work_as_those_that_are_known():
    stream = io.StringIO()
    progress = after(Progress({}, to_draw=4, stream=stream), 10)
    assert progress.seconds_left() is None
    for name, cost in (("a", 1.0), ("b", 3.0)):
        progress.drawn(name, cost)
    progress.ended("a", "lr=1", FINISHED)
    assert progress.seconds_left() == pytest.approx(10 * (3 + 2 * 2), rel=0.01)
    assert stream.getvalue().startswith("[1/4]")


def test_a_retried_trial_starts_over_and_time_left_stays_positive():
    progress = after(Progress({"a": 1.0, "b": 1.0}, stream=io.StringIO()), 10)
    progress.started("a")
    progress.reported("a", 1.0)
    progress.started("a")
    assert progress.seconds_left() is None
    progress.reported("a", 0.5)
    assert progress.seconds_left() == pytest.approx(30, rel=0.01)


def test_an_outcome_without_a_loss_says_why():
    stream = io.StringIO()
    Progress({"a": 1.0}, stream=stream).ended(
        "a", "lr=1", Outcome(outcome="failed", step=0, reason="boom")
    )
    assert stream.getvalue() == "[1/1] 0:00  lr=1: failed, no loss (boom)\n"


def test_a_heartbeat_comes_only_after_silence():
    stream = io.StringIO()
    progress = Progress({"a": 1.0}, stream=stream)
    progress.started("a")
    progress.reported("a", 0.25)
    assert stream.getvalue() == ""
    progress._last -= module.HEARTBEAT_SECONDS + 1
    progress.reported("a", 0.5)
    progress.reported("a", 0.75)
    assert stream.getvalue().count("\n") == 1
    assert "1 running" in stream.getvalue()


def test_a_sweep_without_waiting_runs_has_no_division_by_zero():
    assert Progress({}, done=3).seconds_left() is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")]
)
def test_clock(seconds, text):
    assert module._clock(seconds) == text
