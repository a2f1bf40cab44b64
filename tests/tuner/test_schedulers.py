"""ASHA in a bracket per size: the bad stop, the best never, sizes don't compete."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from tuner.schedulers import make_scheduler

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def asha(sizes, *, max_steps=20, grace_steps=5, reduction_factor=2.0):
    return make_scheduler(
        "asha",
        sizes=sizes,
        max_steps=max_steps,
        grace_steps=grace_steps,
        reduction_factor=reduction_factor,
    )


def trial(name):
    return SimpleNamespace(trial_id=f"ray-{name}", config={"run_id": name})


def run(scheduler, curves, steps=(5, 10, 15)):
    """Reports curves {name: objective at each step} in turns; returns who was stopped when."""
    alive, stopped = {name: trial(name) for name in curves}, {}
    for one in alive.values():
        scheduler.on_trial_add(None, one)
    for at, step in enumerate(steps):
        for name in list(alive):
            result = {"step": step, "objective": curves[name][at]}
            if scheduler.on_trial_result(None, alive[name], result) == STOP:
                stopped[name] = step
                del alive[name]
    return stopped


def test_the_worse_stop_and_the_best_of_each_size_never():
    sizes = {f"{size}-{i}": size for size in (16, 32) for i in range(6)}
    # Best first, so that each later one has someone to lose against; 32 is worse throughout.
    curves = {name: [size / 8 + int(name[-1])] * 3 for name, size in sizes.items()}
    scheduler = asha(sizes)
    stopped = run(scheduler, curves)
    assert {"16-0", "32-0"}.isdisjoint(stopped)
    assert len([n for n in stopped if n.startswith("16")]) >= 3
    assert {n[-1] for n in stopped if n[:2] == "16"} == {n[-1] for n in stopped if n[:2] == "32"}
    assert set(scheduler.reasons) == set(stopped)
    assert scheduler.reasons["16-5"] == (
        "ASHA at step 5: objective 7 was not among the best of size 16"
    )


def test_a_large_bad_size_does_not_stop_because_a_small_one_is_good():
    sizes = {"small": 16, "large": 64}
    assert run(asha(sizes), {"small": [1.0] * 3, "large": [9.0] * 3}) == {}
    assert run(asha({"a": 16, "b": 16}), {"a": [1.0] * 3, "b": [9.0] * 3}) == {"b": 5}


def test_the_best_survives_in_whatever_order_they_report():
    names = [f"r{i}" for i in range(8)]
    for turn in range(8):
        order = names[turn:] + names[:turn]
        curves = {name: [float(name[1])] * 3 for name in order}
        assert "r0" not in run(asha(dict.fromkeys(names, 16)), curves)


def test_nobody_stops_before_the_grace_period():
    curves = {"a": [1.0, 1.0], "b": [9.0, 9.0]}
    assert run(asha({"a": 16, "b": 16}, grace_steps=10), curves, steps=(5, 9)) == {}


def test_a_replay_judges_as_if_the_sweep_had_never_been_cut():
    sizes = dict.fromkeys("abc", 16)
    whole = asha(sizes)
    together = run(whole, {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3})
    cut = asha(sizes)
    for name, value in (("a", 1.0), ("b", 2.0)):
        results = [{"step": s, "objective": value} for s in (5, 10, 15)]
        cut.replay(trial(name), results[: 1 if name in together else 3])
    assert run(cut, {"c": [3.0] * 3}) == {"c": together["c"]}
    assert "a" not in cut.reasons


def test_completions_errors_and_removals_reach_the_bracket():
    scheduler = asha({"a": 16, "b": 16})
    for name in "ab":
        scheduler.on_trial_add(None, trial(name))
    scheduler.on_trial_complete(None, trial("a"), {"step": 5, "objective": 1.0})
    assert scheduler.on_trial_result(None, trial("b"), {"step": 5, "objective": 2.0}) == STOP
    scheduler.on_trial_error(None, trial("b"))
    scheduler.on_trial_remove(None, trial("b"))
    assert "ASHA in 1 brackets" in scheduler.debug_string()


def test_none_is_no_scheduler():
    none = make_scheduler("none", sizes={}, max_steps=1, grace_steps=9, reduction_factor=0)
    assert none is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grace_steps": 0}, "grace_steps must be from 1 to the 20 steps of a run, got 0"),
        ({"grace_steps": 21}, "grace_steps must be from 1 to the 20 steps of a run, got 21"),
        ({"reduction_factor": 1.0}, "reduction_factor must be above 1, got 1"),
        ({"reduction_factor": float("nan")}, "reduction_factor must be above 1, got nan"),
    ],
)
def test_bad_settings_are_sentences(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        asha({}, **change)


def test_an_unknown_name_is_a_sentence():
    with pytest.raises(ValueError, match="scheduler must be one of none, asha, got 'ahsa'"):
        make_scheduler("ahsa", sizes={}, max_steps=1, grace_steps=1, reduction_factor=2)
