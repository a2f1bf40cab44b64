"""From a space to the runs it means: counts, repetitions, overrides, seeds, refusals."""

import json

import pytest
from ray import tune

from models import TransformerConfig
from search_spaces import SPACES
from tuner.plan import Plan, describe_space, label_runs, named_space, narrow
from tuner.presets import lm_tiny
from tuner.rundir import run_id

STEPS = {"steps": 20}
GRID = {
    "optimizer.lr": tune.grid_search([1e-2, 3e-2, 1e-1]),
    "model.qk_norm": tune.grid_search([False, True]),
    "model.size": tune.grid_search([16]),
}


def plan(space, **how):
    return Plan(space, **how).runs()


def ids(runs):
    return [run_id(run) for run in runs]


def test_a_grid_is_every_combination_times_the_seeds():
    runs = plan(GRID, overrides=STEPS, seeds=2, seed=5)
    assert len(runs) == len(set(ids(runs))) == 3 * 2 * 2
    seen = {(r.optimizer.lr, r.model.qk_norm, r.seed) for r in runs}
    assert seen == {
        (lr, qk, s) for lr in (1e-2, 3e-2, 1e-1) for qk in (False, True) for s in (5, 6)
    }
    assert {r.model.width for r in runs} == {16}


def test_the_same_run_twice_is_one_run():
    space = {"optimizer.lr": tune.grid_search([1e-2, 0.01, 3e-2])}
    assert len(plan(space, overrides=STEPS, num_samples=3)) == 2


def test_a_grid_of_an_int_field_and_of_its_float_is_one_run():
    space = {"schedule.warmup_steps": tune.grid_search([2, 2.0])}
    assert len(plan(space, overrides=STEPS)) == 1


def test_overrides_win_over_the_space_and_narrow_takes_them_out():
    space = narrow(GRID, fixed={"optimizer.lr"})
    assert [set(part) for part in space] == [{"model.qk_norm", "model.size"}]
    runs = plan(space, overrides={**STEPS, "optimizer.lr": 0.5})
    assert len(runs) == 2
    assert {r.optimizer.lr for r in runs} == {0.5}
    assert len(plan(GRID, overrides={**STEPS, "optimizer.lr": 0.5})) == 2


def test_narrow_replaces_sizes_and_grids_and_leaves_the_space_alone():
    space = narrow(GRID, sizes=(32, 48), grids={"optimizer.lr": [1e-3]})
    runs = plan(space, overrides=STEPS)
    assert {(r.model.width, r.optimizer.lr) for r in runs} == {(32, 1e-3), (48, 1e-3)}
    assert GRID["model.size"] == {"grid_search": [16]}


def test_random_draws_are_a_function_of_the_seed():
    space = SPACES["random-lr"].SPACE
    draws = [
        ids(plan(space, overrides=STEPS, search="random", num_samples=6, seed=s)) for s in (3, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 6
    assert not set(draws[0]) & set(draws[2])


def test_more_draws_of_a_seed_keep_the_first_ones():
    space = SPACES["random-lr"].SPACE
    few, many = (ids(plan(space, overrides=STEPS, search="random", num_samples=n)) for n in (3, 6))
    assert many[:3] == few


def test_random_stays_inside_its_domains_and_draws_grids_too():
    space = {"optimizer.lr": tune.loguniform(1e-3, 1e-1), "model.size": tune.grid_search([16, 32])}
    runs = plan(space, overrides=STEPS, search="random", num_samples=20)
    assert len(runs) == 20
    assert all(1e-3 <= r.optimizer.lr <= 1e-1 for r in runs)
    assert {r.model.width for r in runs} == {16, 32}
    assert all(type(r.optimizer.lr) is float and type(r.model.width) is int for r in runs)


def test_a_grid_with_a_random_domain_draws_for_every_combination():
    space = {"optimizer.lr": tune.loguniform(1e-3, 1e-1), "model.size": tune.grid_search([16, 32])}
    runs = plan(space, overrides=STEPS, num_samples=3)
    assert len(runs) == 6
    assert len({r.optimizer.lr for r in runs}) == 6


def test_every_seed_of_a_draw_has_the_same_values():
    runs = plan({"optimizer.lr": tune.loguniform(1e-3, 1e-1)},
        overrides=STEPS, search="random", num_samples=2, seeds=3,
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
            plan({"optimizer.lr": tune.grid_search([])}, search=search)


def test_one_bad_value_in_a_grid_refuses_the_whole_plan():
    with pytest.raises(ValueError, match=r"optimizer.lr must be above 0, got -1"):
        plan({"optimizer.lr": tune.grid_search([1e-2, -1.0])})


def test_text_too_short_for_a_batch_is_refused_at_the_plan(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    overrides = {**STEPS, "data.name": "text", "data.path": str(tmp_path / "short.txt")}
    with pytest.raises(ValueError, match="The text must hold a batch of 8 x 65 tokens"):
        plan(GRID, overrides=overrides)


def test_named_spaces_and_files(tmp_path):
    file = tmp_path / "own_space_for_test_plan.py"
    file.write_text("SPACE = {'optimizer.lr': 0.5}\nOTHER = {'optimizer.lr': 0.25}\n")
    assert named_space("lr") is SPACES["lr"].SPACE
    assert named_space(str(file)) == {"optimizer.lr": 0.5}
    assert named_space(f"{file}:OTHER") == {"optimizer.lr": 0.25}
    assert len(plan(named_space(str(file)))) == 1
    with pytest.raises(ValueError, match="Did you mean random-lr"):
        named_space("random_lr")
    with pytest.raises(ValueError, match="must define MISSING"):
        named_space(f"{file}:MISSING")
    with pytest.raises(ValueError, match="must name a file that exists"):
        named_space(str(tmp_path / "absent.py"))


def test_a_dropped_field_is_left_as_the_preset_has_it():
    (part,) = narrow(GRID, drop=["optimizer.lr"])
    assert set(part) == {"model.qk_norm", "model.size"}
    with pytest.raises(ValueError, match=r"Did you mean model.qk_norm"):
        narrow(GRID, drop=["model.qk_nrm"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sizes": (32,), "fixed": ["model.size"]}, "model.size .* got --set and --sizes"),
        ({"sizes": (32,), "grids": {"model.size": [48]}}, "model.size .* got --grid and --sizes"),
        ({"sizes": (32,), "drop": ["model.size"]}, "model.size .* got --drop and --sizes"),
        ({"grids": {"optimizer.lr": [1]}, "fixed": ["optimizer.lr"]}, "got --grid and --set"),
        ({"grids": {"optimizer.lr": [1]}, "drop": ["optimizer.lr"]}, "got --grid and --drop"),
    ],
)
def test_an_option_never_quietly_undoes_another(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        narrow(GRID, **options)


def test_runs_are_named_by_the_fields_in_which_they_differ():
    runs = plan(GRID, overrides=STEPS)
    labels = label_runs(runs)
    assert labels[run_id(runs[0])] == "qk_norm=False lr=0.01"
    assert len(set(labels.values())) == len(runs)
    assert label_runs(runs[:1]) == {run_id(runs[0]): run_id(runs[0])}


def test_a_space_is_described_as_json_values():
    described = describe_space({**GRID, "loss.z_loss": tune.uniform(0, 1), "steps": 20})
    assert described["optimizer.lr"] == [1e-2, 3e-2, 1e-1]
    assert described["steps"] == 20
    assert isinstance(described["loss.z_loss"], str)


def test_a_plan_is_described_as_json_values():
    plan = Plan(GRID, preset=lm_tiny(20), overrides={"model": TransformerConfig(width=16)}, seeds=2)
    described = json.loads(json.dumps(plan.describe()))
    assert (described["preset"], described["seeds"], described["space_name"]) == ("own", 2, "own")
    assert described["overrides"]["model"]["width"] == 16


CONDITIONAL = [
    {"quantizer": "none", "optimizer.lr": tune.grid_search([1e-3, 1e-2])},
    {
        "quantizer": tune.grid_search(["ternary-mean", "ternary-median"]),
        "optimizer.lr": tune.grid_search([1e-2, 1e-1]),
    },
]


def test_a_space_of_several_parts_runs_all_of_them():
    runs = plan(CONDITIONAL, overrides=STEPS)
    lrs = {q: {r.optimizer.lr for r in runs if r.quantization.format == q} for q in FORMATS}
    assert lrs == {"none": {1e-3, 1e-2}, "ternary": {1e-2, 1e-1}}
    assert len(runs) == 6
    drawn = plan(CONDITIONAL, overrides=STEPS, search="random", num_samples=3)
    assert 2 < len(drawn) <= 6
    narrowed = narrow(CONDITIONAL, sizes=(32,), drop=["optimizer.lr"])
    assert len(plan(narrowed, overrides=STEPS)) == 3
    assert {r.model.width for r in plan(narrowed, overrides=STEPS)} == {32}
    assert json.dumps(Plan(CONDITIONAL).describe())


FORMATS = ("none", "ternary")


@pytest.mark.parametrize("space", [[], "lr", [1], {"optimizer.lr"}])
def test_a_space_of_another_form_is_refused(space):
    with pytest.raises(ValueError, match="must be a dict of fields"):
        plan(space, overrides=STEPS)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_says_its_question_and_can_be_planned(name):
    module = SPACES[name]
    assert "?" in module.__doc__.partition("\n\n")[0]
    preset = "cnn-tiny" if name == "ternary-vision" else "lm-tiny"
    runs = plan(module.SPACE, preset=preset, overrides=STEPS)
    assert runs
