"""Spaces by name and from files, and what options change in them."""

import json

import pytest
from ray import tune
from small_grid import GRID, STEPS, plan

from foretune.models import TransformerConfig
from foretune.search_spaces import SPACES, lr, space_module
from foretune.tuner.config.optimizer import Schedule
from foretune.tuner.config.override import override
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.planning.plan import Plan
from foretune.tuner.planning.spaces import (
    describe_space,
    named_preset,
    named_space,
    narrow,
    parts_of,
)


def test_narrow_replaces_sizes_and_grids_and_leaves_the_space_alone():
    space = narrow(GRID, sizes=(32, 48), grids={"optimizer.lr": [1e-3]})
    runs = plan(space, overrides=STEPS)
    assert {(r.model.width, r.optimizer.lr) for r in runs} == {(32, 1e-3), (48, 1e-3)}
    assert GRID["model.size"] == {"grid_search": [16]}


def test_named_spaces_and_files(tmp_path):
    file = tmp_path / "own_space_for_test_plan.py"
    file.write_text("SPACE = {'optimizer.lr': 0.5}\nOTHER = {'optimizer.lr': 0.25}\n")
    assert named_space("lr") is lr.SPACE
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
        ({"sizes": (32,), "fixed": ["model.size"]}, "model.size .* got overrides and sizes"),
        ({"sizes": (32,), "grids": {"model.size": [48]}}, "model.size .* got grids and sizes"),
        ({"sizes": (32,), "drop": ["model.size"]}, "model.size .* got drop and sizes"),
        ({"grids": {"optimizer.lr": [1]}, "fixed": ["optimizer.lr"]}, "got grids and overrides"),
        ({"grids": {"optimizer.lr": [1]}, "drop": ["optimizer.lr"]}, "got grids and drop"),
        ({"sizes": (16, 32, 16)}, "^sizes must give each value once, got 16 twice; leave one"),
        ({"drop": ["optimizer.lr"] * 2}, "^drop must name a field once, got optimizer.lr twice"),
    ],
)
def test_an_option_never_quietly_undoes_another(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        narrow(GRID, **options)


def test_a_space_is_described_as_json_values():
    described = describe_space({**GRID, "loss.z_loss": tune.uniform(0, 1), "steps": 20})
    assert described["optimizer.lr"] == [1e-2, 3e-2, 1e-1]
    assert described["steps"] == 20
    assert isinstance(described["loss.z_loss"], str)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_says_its_question_and_can_be_planned(name):
    space = named_space(name)
    assert "?" in space_module(name).__doc__.partition("\n\n")[0]
    has_steps = any("steps" in part for part in parts_of(space))
    assert plan(space, preset=named_preset(name), overrides={} if has_steps else STEPS)


def test_a_space_brings_its_preset_or_lm_tiny(tmp_path):
    assert named_preset("ternary-vision") == "cnn-tiny"
    assert named_preset("lr") == "lm-tiny"
    for body, preset in (("", "lm-tiny"), ("PRESET = 'vit-tiny'\n", "vit-tiny")):
        file = tmp_path / f"preset_{len(body)}_for_test_spaces.py"
        file.write_text(f"SPACE = OTHER = {{'optimizer.lr': 0.5}}\n{body}")
        assert named_preset(str(file)) == named_preset(f"{file}:OTHER") == preset
    file = tmp_path / "bad_preset_for_test_spaces.py"
    file.write_text("SPACE = {}\nPRESET = 3\n")
    with pytest.raises(ValueError, match=r"PRESET of .* must be a preset's name or a Run, got 3\."):
        named_preset(str(file))


def test_model_configs_in_a_space_are_written_down():
    """Plans with whole models as values can be written as JSON before Ray starts."""
    space = {"model": tune.grid_search([TransformerConfig(width=16), TransformerConfig(width=32)])}
    base = override(lm_tiny(20), {"schedule": Schedule(warmup_steps=1)})
    assert len(Plan(space, preset=base).runs()) == 2
    json.dumps(describe_space(space))
