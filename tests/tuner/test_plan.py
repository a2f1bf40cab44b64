"""From a space to the runs it means: counts, repetitions, overrides, seeds, refusals."""

import pytest
from ray import tune

from search_spaces import SPACES
from tuner.plan import check_dropped, describe_space, named_space, narrow, plan
from tuner.rundir import run_id

STEPS = {"steps": 20}
GRID = {
    "optimizer.lr": tune.grid_search([1e-2, 3e-2, 1e-1]),
    "model.qk_norm": tune.grid_search([False, True]),
    "model.size": tune.grid_search([16]),
}


def ids(runs):
    return [run_id(run) for run in runs]


def test_a_grid_is_every_combination_times_the_seeds():
    runs = plan(GRID, preset="lm-tiny", overrides=STEPS, seeds=2, seed=5)
    assert len(runs) == len(set(ids(runs))) == 3 * 2 * 2
    seen = {(r.optimizer.lr, r.model.qk_norm, r.seed) for r in runs}
    assert seen == {
        (lr, qk, s) for lr in (1e-2, 3e-2, 1e-1) for qk in (False, True) for s in (5, 6)
    }
    assert {r.model.width for r in runs} == {16}


def test_the_same_run_twice_is_one_run():
    space = {"optimizer.lr": tune.grid_search([1e-2, 0.01, 3e-2])}
    assert len(plan(space, preset="lm-tiny", overrides=STEPS, num_samples=3)) == 2


def test_a_grid_of_an_int_field_and_of_its_float_is_one_run():
    space = {"schedule.warmup_steps": tune.grid_search([2, 2.0])}
    assert len(plan(space, preset="lm-tiny", overrides=STEPS)) == 1


def test_overrides_win_over_the_space_and_narrow_takes_them_out():
    space = narrow(GRID, sizes=(), grids={}, fixed={"optimizer.lr"})
    assert set(space) == {"model.qk_norm", "model.size"}
    runs = plan(space, preset="lm-tiny", overrides={**STEPS, "optimizer.lr": 0.5})
    assert len(runs) == 2
    assert {r.optimizer.lr for r in runs} == {0.5}
    assert len(plan(GRID, preset="lm-tiny", overrides={**STEPS, "optimizer.lr": 0.5})) == 2


def test_narrow_replaces_sizes_and_grids_and_leaves_the_space_alone():
    space = narrow(GRID, sizes=(32, 48), grids={"optimizer.lr": [1e-3]}, fixed=())
    runs = plan(space, preset="lm-tiny", overrides=STEPS)
    assert {(r.model.width, r.optimizer.lr) for r in runs} == {(32, 1e-3), (48, 1e-3)}
    assert GRID["model.size"] == {"grid_search": [16]}


def test_random_draws_are_a_function_of_the_seed():
    space = SPACES["random-lr"].SPACE
    draws = [
        ids(plan(space, preset="lm-tiny", overrides=STEPS, search="random", num_samples=6, seed=s))
        for s in (3, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 6
    assert not set(draws[0]) & set(draws[2])


def test_more_draws_of_a_seed_keep_the_first_ones():
    space = SPACES["random-lr"].SPACE
    few, many = (
        ids(plan(space, preset="lm-tiny", overrides=STEPS, search="random", num_samples=n))
        for n in (3, 6)
    )
    assert many[:3] == few


def test_random_stays_inside_its_domains_and_draws_grids_too():
    space = {"optimizer.lr": tune.loguniform(1e-3, 1e-1), "model.size": tune.grid_search([16, 32])}
    runs = plan(space, preset="lm-tiny", overrides=STEPS, search="random", num_samples=20)
    assert len(runs) == 20
    assert all(1e-3 <= r.optimizer.lr <= 1e-1 for r in runs)
    assert {r.model.width for r in runs} == {16, 32}
    assert all(type(r.optimizer.lr) is float and type(r.model.width) is int for r in runs)


def test_a_grid_with_a_random_domain_draws_for_every_combination():
    space = {"optimizer.lr": tune.loguniform(1e-3, 1e-1), "model.size": tune.grid_search([16, 32])}
    runs = plan(space, preset="lm-tiny", overrides=STEPS, num_samples=3)
    assert len(runs) == 6
    assert len({r.optimizer.lr for r in runs}) == 6


def test_every_seed_of_a_draw_has_the_same_values():
    runs = plan(
        {"optimizer.lr": tune.loguniform(1e-3, 1e-1)},
        preset="lm-tiny", overrides=STEPS, search="random", num_samples=2, seeds=3,
    )  # fmt: skip
    by_lr = {}
    for run in runs:
        by_lr.setdefault(run.optimizer.lr, set()).add(run.seed)
    assert list(by_lr.values()) == [{0, 1, 2}, {0, 1, 2}]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"search": "gird"}, "search must be one of grid, random, got 'gird'"),
        ({"seeds": 0}, "seeds must be 1 or more, got 0"),
        ({"num_samples": -1}, "num_samples must be 1 or more, got -1"),
        ({"interventions": ["qk-layernrm"]}, "Did you mean qk-layernorm"),
        ({"preset": "lm-tinny"}, "Did you mean lm-tiny"),
        ({"overrides": {"optimizer.lrr": 1}}, "Did you mean optimizer.lr"),
    ],
)
def test_refusals_are_sentences(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan(GRID, **{"preset": "lm-tiny", **change})


def test_an_empty_grid_is_refused_for_both_searches():
    for search in ("grid", "random"):
        with pytest.raises(ValueError, match=r"grid of optimizer.lr must hold at least one value"):
            plan({"optimizer.lr": tune.grid_search([])}, preset="lm-tiny", search=search)


def test_one_bad_value_in_a_grid_refuses_the_whole_plan():
    with pytest.raises(ValueError, match=r"optimizer.lr must be above 0, got -1"):
        plan({"optimizer.lr": tune.grid_search([1e-2, -1.0])}, preset="lm-tiny")


def test_text_too_short_for_a_batch_is_refused_at_the_plan(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    overrides = {**STEPS, "data.name": "text", "data.path": str(tmp_path / "short.txt")}
    with pytest.raises(ValueError, match="The text must hold a batch of 8 x 65 tokens"):
        plan(GRID, preset="lm-tiny", overrides=overrides)


def test_named_spaces_and_files(tmp_path):
    file = tmp_path / "own_space_for_test_plan.py"
    file.write_text("SPACE = {'optimizer.lr': 0.5}\nOTHER = {'optimizer.lr': 0.25}\n")
    assert named_space("lr") is SPACES["lr"].SPACE
    assert named_space(str(file)) == {"optimizer.lr": 0.5}
    assert named_space(f"{file}:OTHER") == {"optimizer.lr": 0.25}
    assert len(plan(named_space(str(file)), preset="lm-tiny")) == 1
    with pytest.raises(ValueError, match="Did you mean random-lr"):
        named_space("random_lr")
    with pytest.raises(ValueError, match="must define MISSING"):
        named_space(f"{file}:MISSING")
    with pytest.raises(ValueError, match="must name a file that exists"):
        named_space(str(tmp_path / "absent.py"))


def test_a_field_to_drop_must_be_in_the_space():
    check_dropped(GRID, ["optimizer.lr"])
    with pytest.raises(ValueError, match=r"Did you mean model.qk_norm"):
        check_dropped(GRID, ["model.qk_nrm"])


def test_a_space_is_described_as_json_values():
    described = describe_space({**GRID, "loss.z_loss": tune.uniform(0, 1), "steps": 20})
    assert described["optimizer.lr"] == [1e-2, 3e-2, 1e-1]
    assert described["steps"] == 20
    assert isinstance(described["loss.z_loss"], str)
