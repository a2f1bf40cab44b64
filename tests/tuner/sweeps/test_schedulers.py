"""ASHA in a bracket per group: the bad stop, the best never, groups don't compete."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from foretune.tuner.sweeps.schedulers import make_scheduler

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def median(groups, *, grace_steps=5):
    return make_scheduler(
        "median", groups=groups, max_steps=20, grace_steps=grace_steps, reduction_factor=2.0
    )


def asha(groups, *, max_steps=20, grace_steps=5, reduction_factor=2.0):
    return make_scheduler(
        "asha",
        groups=groups,
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
    groups = {f"{size}-{i}": f"size {size}" for size in (16, 32) for i in range(6)}
    # Best first, so that each later one has someone to lose against; 32 is worse throughout.
    curves = {name: [int(name[:2]) / 8 + int(name[-1])] * 3 for name in groups}
    scheduler = asha(groups)
    stopped = run(scheduler, curves)
    assert {"16-0", "32-0"}.isdisjoint(stopped)
    assert len([n for n in stopped if n.startswith("16")]) >= 3
    assert {n[-1] for n in stopped if n[:2] == "16"} == {n[-1] for n in stopped if n[:2] == "32"}
    assert set(scheduler.reasons) == set(stopped)
    assert scheduler.reasons["16-5"] == (
        "ASHA at step 5: objective 7 was not among the best of size 16"
    )


def test_a_large_bad_size_does_not_stop_because_a_small_one_is_good():
    groups = {"small": "size 16", "large": "size 64"}
    assert run(asha(groups), {"small": [1.0] * 3, "large": [9.0] * 3}) == {}
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


def test_a_group_is_any_key_and_is_named_as_it_prints():
    groups = {"a": (16, "absmean"), "b": (16, "absmean"), "c": (16, "none")}
    scheduler = asha(groups)
    assert run(scheduler, {"a": [1.0] * 3, "b": [9.0] * 3, "c": [9.0] * 3}) == {"b": 5}
    assert scheduler.reasons["b"].endswith("not among the best of (16, 'absmean')")


def reports(value, *steps):
    return [{"step": step, "objective": value} for step in steps]


def test_a_replay_judges_as_if_the_sweep_had_never_been_cut():
    groups = dict.fromkeys("abc", "size 16")
    curves = {"a": [1.0] * 3, "b": [2.0] * 3, "c": [3.0] * 3}
    stopped = run(asha(groups), curves)
    assert stopped == {"b": 5, "c": 5}
    cut = asha(groups)
    cut.replay("a", reports(1.0, 5, 10, 15), end={"step": 20, "objective": 1.0})
    cut.replay("b", reports(2.0, 5), end={"step": 5, "objective": 2.0})
    assert run(cut, {"c": curves["c"]}) == {"c": 5}
    assert set(cut.reasons) == {"c"}


def rungs(scheduler, group="size 16"):
    """{step: {run id: reward}} of Ray's own ASHA."""
    (bracket,) = scheduler._brackets[group]._brackets
    return {int(step): recorded for step, recorded in bracket._rungs}


def resumed(scheduler, name, objective, steps):
    """Goes on with a run as Ray does: a new trial id, reports after the checkpoint alone."""
    again = SimpleNamespace(trial_id=f"ray-again-{name}", config={"run_id": name})
    scheduler.on_trial_add(None, again)
    for step in steps:
        result = {"step": step, "objective": objective}
        if scheduler.on_trial_result(None, again, result) == STOP:
            return step
    scheduler.on_trial_complete(None, again, {"step": 20, "objective": objective})
    return None


def test_a_run_that_goes_on_from_its_checkpoint_stands_once_in_every_rung():
    groups = dict.fromkeys("abc", "size 16")
    whole = asha(groups)
    run(whole, {"a": [1.0] * 3, "b": [2.0] * 3})
    whole.on_trial_complete(None, trial("a"), {"step": 20, "objective": 1.0})
    cut = asha(groups)
    cut.replay("b", reports(2.0, 5), end={"step": 5, "objective": 2.0})
    cut.replay("a", reports(1.0, 5, 10))
    assert rungs(cut) == {20: {}, 10: {"a": -1.0}, 5: {"a": -1.0, "b": -2.0}}
    assert resumed(cut, "a", 1.0, [15]) is None
    assert rungs(cut) == rungs(whole) == {20: {"a": -1.0}, 10: {"a": -1.0}, 5: rungs(whole)[5]}


def test_a_run_that_waits_for_its_turn_judges_the_others_by_what_it_has_shown():
    """The killed run's first rungs hold it before Ray has started it again."""
    scheduler = asha(dict.fromkeys("ab", "size 16"))
    scheduler.replay("a", reports(1.0, 5, 10))
    assert run(scheduler, {"b": [9.0] * 3}) == {"b": 5}
    assert resumed(scheduler, "a", 1.0, [15]) is None


def test_completions_errors_and_removals_reach_the_bracket():
    scheduler = asha({"a": 16, "b": 16})
    for name in "ab":
        scheduler.on_trial_add(None, trial(name))
    scheduler.on_trial_complete(None, trial("a"), {"step": 5, "objective": 1.0})
    assert scheduler.on_trial_result(None, trial("b"), {"step": 5, "objective": 2.0}) == STOP
    scheduler.on_trial_error(None, trial("b"))
    scheduler.on_trial_remove(None, trial("b"))
    assert "ASHA in 1 brackets" in scheduler.debug_string()


def test_the_median_rule_stops_the_worse_half_of_each_group_and_never_the_best():
    groups = {f"{size}-{i}": f"size {size}" for size in (16, 32) for i in range(6)}
    curves = {name: [int(name[:2]) / 8 + int(name[-1])] * 3 for name in groups}
    scheduler = median(groups)
    stopped = run(scheduler, curves)
    # Whoever comes first has too few rivals at that step yet.
    assert set(stopped) == {f"{size}-{i}" for size in (16, 32) for i in (3, 4, 5)}
    assert scheduler.reasons["16-5"] == (
        "median rule at step 5: objective 7 was never below the median of size 16"
    )
    few = {"a": [1.0] * 3, "b": [2.0] * 3, "c": [9.0] * 3}
    assert run(median(dict.fromkeys("abc", "size 16")), few) == {}
    assert "median rule in 2 brackets" in scheduler.debug_string()


def test_a_replayed_median_rule_judges_as_if_the_sweep_had_never_been_cut():
    groups = dict.fromkeys("abcde", "size 16")
    curves = {name: [float(i), i - 0.5, i - 1.0] for i, name in enumerate("abcde")}
    whole = median(groups)
    stopped = run(whole, curves)
    assert stopped == {"d": 5, "e": 5}
    cut = median(groups)
    for name in "abc":
        reports_of = [
            {"step": step, "objective": value}
            for step, value in zip((5, 10, 15), curves[name], strict=True)
        ]
        cut.replay(name, reports_of, end={"step": 20, "objective": curves[name][-1]})
    cut.replay("d", reports(3.0, 5), end={"step": 5, "objective": 3.0})
    assert run(cut, {"e": curves["e"]}) == {"e": 5}
    # The report that a run was stopped by counts once.
    (results,) = [r for t, r in cut._brackets["size 16"]._results.items() if t.trial_id == "d"]
    assert len(results) == 1


def test_a_run_goes_on_from_its_checkpoint_under_the_median_rule():
    """Though its past alone, asked again, would have it stopped."""
    scheduler = median(dict.fromkeys("abcd", "size 16"))
    for name in "abc":
        scheduler.replay(name, reports(1.0, 5, 10), end={"step": 20, "objective": 1.0})
    scheduler.replay("d", reports(2.0, 5, 10))
    assert resumed(scheduler, "d", 0.5, [15]) is None
    assert resumed(scheduler, "d", 2.0, [15]) is None


def test_population_based_training_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"scheduler must not be pbt: it changes learning rates"):
        make_scheduler("pbt", groups={}, max_steps=1, grace_steps=1, reduction_factor=2)


def test_none_is_no_scheduler():
    none = make_scheduler("none", groups={}, max_steps=1, grace_steps=9, reduction_factor=0)
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
    with pytest.raises(ValueError, match="scheduler must be one of none, asha, median, got 'ahsa'"):
        make_scheduler("ahsa", groups={}, max_steps=1, grace_steps=1, reduction_factor=2)
