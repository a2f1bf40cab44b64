"""From a space to the runs it means: counts, repetitions, overrides, seeds, refusals."""

import json

import pytest
from ray import tune
from small_grid import GRID, STEPS, plan

from foretune.argument_error import flags
from foretune.models import TransformerConfig
from foretune.search_spaces import random_lr
from foretune.tuner.cli.main import flag
from foretune.tuner.config.interventions import INTERVENTIONS
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.run_names import name_runs
from foretune.tuner.planning.spaces import narrow
from foretune.tuner.records.run_json import run_id


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


def test_random_draws_are_a_function_of_the_seed():
    space = random_lr.SPACE
    draws = [
        ids(plan(space, overrides=STEPS, search="random", num_samples=6, seed=s)) for s in (3, 3, 4)
    ]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 6
    assert not set(draws[0]) & set(draws[2])


def test_more_draws_of_a_seed_keep_the_first_ones():
    space = random_lr.SPACE
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
        ({"search": "gird"}, "search must be one of grid, random, optuna, got 'gird'"),
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


def test_runs_are_named_by_the_fields_in_which_they_differ():
    runs = plan(GRID, overrides=STEPS)
    labels = name_runs(runs)
    assert labels[run_id(runs[0])] == "qk_norm=False lr=0.01"
    assert len(set(labels.values())) == len(runs)
    assert name_runs(runs[:1]) == {run_id(runs[0]): run_id(runs[0])}


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


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            {"interventions": ["qk-layernorm"]},
            "intervention qk-layernorm sets model.qk_norm, which the space varies; add --drop "
            "model.qk_norm.",
        ),
        (
            {"interventions": ["qk-layernorm"], "grids": ("model.qk_norm",)},
            "intervention qk-layernorm sets model.qk_norm, which --grid varies; leave one out.",
        ),
        (
            {"interventions": ["z-loss"], "overrides": {**STEPS, "loss.z_loss": 0.5}},
            "intervention z-loss sets loss.z_loss, which --set sets to 0.5; leave one out.",
        ),
        (
            {"preset": "cnn-tiny"},
            "model.qk_norm is no field of ConvNetConfig; leave it out with --drop model.qk_norm.",
        ),
        (
            {"preset": "cnn-tiny", "grids": ("model.qk_norm",)},
            "model.qk_norm is no field of ConvNetConfig. There are: width, depth, image_size,",
        ),
    ],
)
def test_a_space_that_does_not_fit_says_what_to_leave_out(how, sentence):
    """As the terminal has it: an error's own text names arguments as Python does."""
    with pytest.raises(ValueError, match=r"model\.qk_norm|loss\.z_loss") as refused:
        plan(narrow(GRID, drop=["model.size"]), **how)
    with flags(flag):
        assert str(refused.value).startswith(sentence)


def test_with_the_field_dropped_the_intervention_holds():
    runs = plan(narrow(GRID, drop=["model.qk_norm"]), interventions=["qk-layernorm"])
    assert {run.model.qk_norm for run in runs} == {True}
    assert len(runs) == 3


def test_a_setting_without_a_number_format_makes_no_further_run():
    space = {
        "quantizer": tune.grid_search(["none", "control", "ternary-mean"]),
        "quantization.start": tune.grid_search([0.0, 0.2]),
    }
    runs = plan(space, overrides=STEPS)
    formats = [(r.quantization.format, r.quantization.norm, r.quantization.start) for r in runs]
    assert formats == [
        ("none", False, 0.0),
        ("none", True, 0.0),
        ("ternary", True, 0.0),
        ("ternary", True, 0.2),
    ]


def test_a_setting_serves_the_runs_that_can_use_it_and_is_refused_where_none_can():
    late = {**STEPS, "quantization.start": 0.25}
    none_too = {"quantizer": tune.grid_search(["none", "ternary-median"])}
    assert [run.quantization.start for run in plan(none_too, overrides=late)] == [0.0, 0.25]
    with pytest.raises(ValueError, match=r"^quantization.start=0.25 needs a number format, got "):
        plan(GRID, overrides=late)
    with pytest.raises(ValueError, match=r"^quantization.start=0.2 needs a number format, got "):
        plan({"quantization.start": tune.grid_search([0, 0.2])}, overrides=STEPS)


def test_two_sizes_of_one_net_are_refused_before_anything_starts():
    sizes = {"model.size": tune.grid_search([12, 13])}
    with pytest.raises(
        ValueError, match=r"^model.size must give another net each time, got 12 and"
    ):
        plan(sizes, preset="resnet-tiny", overrides=STEPS)
    assert len(plan(narrow(sizes, sizes=(12, 24)), preset="resnet-tiny", overrides=STEPS)) == 2


def named(space):
    runs = plan(space, overrides=STEPS)
    labels = name_runs(runs)
    return [labels[name] for name in ids(runs)]


def test_number_formats_go_by_their_quantizer_s_name():
    names = ["none", "control", "ternary-mean", "ternary-median-bare", "int8", "int4"]
    space = {"quantizer": tune.grid_search(names), "optimizer.lr": tune.grid_search([0.01, 0.1])}
    assert named(space) == [f"quantizer={n} lr={lr}" for n in names for lr in (0.01, 0.1)]


def test_what_is_unlike_the_named_quantizer_is_told_beside_it():
    space = {
        "quantizer": tune.grid_search(["none", "ternary-mean"]),
        "quantization.start": tune.grid_search([0.0, 0.2]),
    }
    assert named(space) == [
        "quantizer=none start=0",
        "quantizer=ternary-mean start=0",
        "quantizer=ternary-mean start=0.2",
    ]
    varied = {"quantization.start": tune.grid_search([0.0, 0.2]), "quantizer": "int8"}
    assert named(varied) == ["start=0", "start=0.2"]


def test_names_of_runs_that_differ_in_many_fields_tell_what_is_special_about_each():
    space = {
        "intervention": tune.grid_search(list(INTERVENTIONS)),
        "optimizer.lr": tune.grid_search([1e-2, 1e-1]),
    }
    runs = Plan(space, overrides={"steps": 300}).runs()
    labels = name_runs(runs)
    assert len(set(labels.values())) == len(runs)
    assert labels[run_id(runs[0])] == "qk_norm=True lr=0.01"
    assert max(len(text) for text in labels.values()) < 60
