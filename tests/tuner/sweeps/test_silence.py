"""A trial that is silent for much longer than usual is named, once."""

import io

from foretune.tuner.sweeps.progress import Progress
from foretune.tuner.sweeps.silence import LEAST_S, TIMES, UNKNOWN_S, Silence


def test_a_trial_is_named_once_until_it_reports_again():
    silence = Silence()
    silence.started("one", 0.0)
    silence.started("two", 0.0)
    for now in (20.0, 40.0, 60.0):
        silence.reported("one", now)
        assert silence.overdue(now + 5) == []
    (two,) = silence.overdue(TIMES * 20 + 1)  # By the others, since it hasn't reported yet.
    assert (two.run_id, two.usual) == ("two", 20.0)
    silence.reported("two", TIMES * 20 + 2)
    assert [s.run_id for s in silence.overdue(60 + TIMES * 20 + 1)] == ["one"]
    assert silence.overdue(60 + TIMES * 20 + 2) == []
    silence.ended("one")
    silence.ended("two")
    assert silence.overdue(1e9) == []


def test_fast_trials_and_the_first_ones_have_their_time():
    silence = Silence()
    silence.started("one", 0.0)
    assert silence.overdue(TIMES * UNKNOWN_S) == []
    assert [s.run_id for s in silence.overdue(TIMES * UNKNOWN_S + 1)] == ["one"]
    silence.reported("one", 1000.0)
    silence = Silence()
    silence.started("one", 0.0)
    silence.reported("one", 0.1)
    assert silence.overdue(LEAST_S) == []
    assert silence.overdue(LEAST_S + 1)


def test_the_line_names_the_trial_and_the_cure():
    stream = io.StringIO()
    Progress({"one": 1.0}, stream=stream).silent("lr=0.1", 300.0, 3.0)
    assert (
        "lr=0.1: silent for 5:00, 0:03 between reports so far; trial_timeout" in stream.getvalue()
    )
