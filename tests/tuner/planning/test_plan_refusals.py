"""What a plan refuses before anything starts, beside bad values: settings and interventions that
don't fit a model, or leave one another nothing to do.
"""

import pytest
from ray import tune
from small_grid import STEPS, plan

from foretune.tuner.config.resolve import resolve
from foretune.tuner.planning.plan import Plan
from foretune.tuner.sweeps.sweep import sweep_plan


@pytest.mark.parametrize(
    ("preset", "changes", "sentence"),
    [
        ("lm-tiny", {"parametrization.name": "mup-full", "model.kappa": 10.0}, "model.kappa=10.0"),
        (
            "cnn-tiny",
            {"parametrization.base_depth": 2},
            "needs foretune.models.blocks.block.Block, got none",
        ),
    ],
)
def test_a_parametrization_that_does_not_fit_is_refused_before_anything_is_written(
    preset, changes, sentence, tmp_path
):
    space = {"optimizer.lr": tune.grid_search([1e-3])}
    asked = Plan(space, preset=preset, overrides={**changes, **STEPS})
    with pytest.raises(ValueError, match=sentence):
        sweep_plan(asked, out=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("atan2+small-epsilon", "optimizer.epsilon=1e-15 needs a rule that divides"),
        ("large-epsilon+atan2", "optimizer.epsilon=1e-06 needs a rule that divides"),
        ("no-decay+decay-linear", "optimizer.decay_on=linear needs weight decay"),
    ],
)
def test_an_intervention_that_another_leaves_nothing_to_do_is_refused(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan({"intervention": names})
    with pytest.raises(ValueError, match=sentence):
        resolve("lm-tiny", interventions=names.split("+"))
    alone = tune.grid_search([names, *names.split("+")])
    assert plan({"intervention": alone}), "where another run uses it, it is left out quietly"


@pytest.mark.parametrize("how", [{"overrides": {"seed": 5}}, {"grids": ("seed",)}])
def test_a_seed_that_would_undo_the_seeds_is_refused(how):
    space = {"seed": tune.grid_search([1, 2])} if "grids" in how else {}
    with pytest.raises(ValueError, match=r"^seeds must be 1 where seed is set .* got 3"):
        Plan(space, seeds=3, **how)
