"""Search spaces for Optuna: every kind of domain, parts, JSON and back, refusals."""

import json

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from ray import tune

from foretune.models.quantization.config import Quantization
from foretune.search_spaces import random_lr
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.planning.optuna_plan import OpenPlan
from foretune.tuner.planning.optuna_space import Choice, OptunaSpace, optuna_space
from foretune.tuner.planning.optuna_study import quiet
from foretune.tuner.planning.plan import Plan
from foretune.tuner.records.run_json import run_id

DOMAINS = [
    (tune.uniform(0.0, 1.0), FloatDistribution(0.0, 1.0)),
    (tune.loguniform(1e-4, 1e-1), FloatDistribution(1e-4, 1e-1, log=True)),
    (tune.quniform(0.5, 3.0, 0.5), FloatDistribution(0.5, 3.0, step=0.5)),
    (tune.quniform(1.0, 4.0, 1.0), FloatDistribution(1.0, 4.0, step=1.0)),
    (tune.randint(2, 9), IntDistribution(2, 8)),
    (tune.lograndint(2, 9), IntDistribution(2, 8, log=True)),
    (tune.qrandint(3, 17, 4), IntDistribution(4, 16, step=4)),
    (tune.qrandint(2, 9), IntDistribution(2, 8)),
    (tune.qlograndint(2, 9, 1), IntDistribution(2, 8, log=True)),
]
LISTS = [tune.choice([0.0, 1e-4, None]), tune.grid_search([0.0, 1e-4, None])]
TWO_PARTS = [
    {"quantizer": "none", "optimizer.lr": tune.loguniform(1e-3, 1e-2)},
    {
        "quantizer": tune.grid_search(["ternary-mean", "ternary-median"]),
        "optimizer.lr": tune.loguniform(1e-2, 1e-1),
        "model.size": tune.choice([16, 32]),
    },
]


def drawn(space, count, seed=0):
    """Parameters and values of random draws."""
    quiet()
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    for _ in range(count):
        trial = study.ask()
        space.suggest(trial)
        yield trial.params, space.chosen(trial.params)


@pytest.mark.parametrize(
    ("domain", "distribution"), DOMAINS, ids=lambda value: type(value).__name__
)
def test_a_range_is_the_distribution_of_the_same_values(domain, distribution):
    space = optuna_space({"field": domain})
    assert space.parts[0]["field"].distribution == distribution
    rng = np.random.RandomState(0)
    samples = {domain.sample(random_state=rng) for _ in range(500)}
    values = {chosen["field"] for _, chosen in drawn(space, 500)}
    if isinstance(distribution, IntDistribution) or distribution.step:
        assert values == samples
    else:
        assert all(distribution.low <= value <= distribution.high for value in samples | values)
    assert all(type(value) is type(domain.cast(1)) for value in values)


@pytest.mark.parametrize("domain", LISTS)
def test_a_list_or_grid_of_values_of_any_type_is_a_choice(domain):
    space = optuna_space({"field": domain})
    assert space.parts[0]["field"].distribution == CategoricalDistribution((0, 1, 2))
    assert {chosen["field"] for _, chosen in drawn(space, 50)} == {0.0, 1e-4, None}


def test_a_fixed_value_stays_as_it_is_and_is_no_parameter():
    space = optuna_space({"steps": 20, "optimizer.lr": tune.uniform(0.0, 1.0)})
    for params, chosen in drawn(space, 5):
        assert set(params) == {"optimizer.lr"}
        assert chosen["steps"] == 20


def test_parts_are_a_choice_with_conditional_names():
    seen = set()
    for params, chosen in drawn(optuna_space(TWO_PARTS), 60):
        seen.add((params["part"], chosen["quantizer"]))
        if params["part"] == 0:
            assert set(params) == {"part", "0:optimizer.lr"}
            assert set(chosen) == {"quantizer", "optimizer.lr"}
            assert 1e-3 <= chosen["optimizer.lr"] <= 1e-2
        else:
            assert set(params) == {"part", "1:quantizer", "1:optimizer.lr", "1:model.size"}
            assert 1e-2 <= chosen["optimizer.lr"] <= 1e-1
            assert chosen["model.size"] in (16, 32)
    assert seen == {(0, "none"), (1, "ternary-mean"), (1, "ternary-median")}


OF_ALL_TYPES = {
    "a": tune.choice([0.5, "x", None, True, (1, 2), Quantization()]),
    "b": Quantization(norm=True),
    "c": tune.randint(1, 4),
}


@pytest.mark.parametrize("space", [random_lr.SPACE, TWO_PARTS, OF_ALL_TYPES])
def test_json_gives_the_space_back(space):
    found = optuna_space(space)
    again = OptunaSpace.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert [c for _, c in drawn(again, 20)] == [c for _, c in drawn(found, 20)]


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        (tune.randn(0.0, 1.0), r"field must be uniform, .* got Float\(-inf, inf\) Normal; give it"),
        (tune.qrandn(0.0, 1.0, 0.5), "got .* Normal in steps of 0.5"),
        (tune.sample_from(lambda: 1), "field must be uniform, log-uniform or a list"),
        (tune.qloguniform(1.0, 64.0, 1.0), "must have steps or a logarithmic scale .* got both"),
        (tune.qlograndint(4, 64, 4), "got both in Integer.*LogUniform in steps of 4"),
        (tune.choice([]), "The values of field must be one or more, got none"),
        (tune.grid_search([]), "The values of field must be one or more, got none"),
        (1.0, "space must leave something open for search=optuna"),
    ],
)
def test_what_optuna_has_no_distribution_for_is_refused(domain, sentence):
    with pytest.raises(ValueError, match=sentence):
        optuna_space({"field": domain})


def test_a_value_that_json_has_no_form_for_is_refused():
    for value in (object(), {"a": 1}, float("inf")):
        with pytest.raises(ValueError, match="field must be a JSON value or a part of a Run"):
            optuna_space({"field": tune.choice([1, value])}).to_json()


def test_a_space_and_its_plan_describe_themselves():
    lines = OpenPlan.of(Plan(TWO_PARTS, search="optuna")).describe()
    assert lines[:3] == [
        "part 0",
        "  quantizer     none",
        "  optimizer.lr  from 0.001 to 0.01, log-uniform",
    ]
    assert "  model.size    one of 16, 32" in lines
    assert str(Choice(IntDistribution(4, 16, step=4))) == "from 4 to 16 in steps of 4"


STEPS = {"steps": 20}


def open_plan(space, **how):
    return OpenPlan.of(Plan(space, search="optuna", **{"overrides": STEPS, **how}))


def test_a_plan_comes_back_from_json_and_gives_the_same_runs():
    for preset in ("lm-tiny", lm_tiny(steps=30)):
        plan = open_plan(TWO_PARTS, preset=preset, interventions=("z-loss",), seed=3, num_samples=4)
        again = OpenPlan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again.plan.num_samples == 4
        for params, _ in drawn(plan.space, 10):
            assert run_id(again.run(params)) == run_id(plan.run(params))
            assert plan.run(params).seed == 3


def test_examples_are_of_every_part_and_of_every_length():
    runs = open_plan([{**TWO_PARTS[0], "steps": tune.randint(10, 31)}, TWO_PARTS[1]], overrides={})
    lengths = {run.steps for run in runs.examples()}
    assert {10, 30} <= lengths
    formats = {run.quantization.format for run in runs.examples()}
    assert formats == {"none", "ternary"}


def test_sweep_json_says_what_the_domains_are():
    (text,) = Plan({"optimizer.lr": tune.loguniform(1e-3, 0.1)}, search="optuna").describe()[
        "space"
    ]
    assert text == {"optimizer.lr": "Float(0.001, 0.1) LogUniform"}


def test_what_no_draw_can_be_is_refused_before_the_start():
    lr = {"optimizer.lr": tune.uniform(0.1, 0.2)}
    for space, sentence in [
        ({**lr, "optimizer.lrr": 1}, "Did you mean optimizer.lr"),
        ({"optimizer.lr": tune.uniform(-2.0, -1.0)}, "optimizer.lr must be"),
        ([lr, {**lr, "model.depth": tune.choice([0, -1])}], "depth"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            open_plan(space).examples()
    with pytest.raises(ValueError, match=r"quantization\.group_size=4 needs"):
        open_plan(lr, overrides={**STEPS, "quantization.group_size": 4}).examples()


def test_seeds_beside_the_space_are_refused():
    with pytest.raises(ValueError, match="seeds must be 1 for search=optuna, got 2"):
        Plan({"optimizer.lr": tune.uniform(0.1, 0.2)}, search="optuna", seeds=2)
    space = {"optimizer.lr": tune.uniform(0.1, 0.2), "seed": tune.grid_search([5, 6])}
    assert {run.seed for run in open_plan(space).examples()} == {5, 6}
