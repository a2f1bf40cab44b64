"""One order: preset, ladder size, interventions from left to right, overrides."""

import re

import pytest

from foretune.tuner.config.assignments import parse_assignments, parse_grids, parse_value
from foretune.tuner.config.optimizer import Optimizer
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.config.resolve import resolve


def test_overrides_come_after_interventions_after_size():
    run = resolve(
        "lm-tiny",
        size=32,
        interventions=["coupled-decay", "qk-layernorm"],
        overrides={"optimizer.lr": 0.5},
    )
    assert run.model.width == 32
    assert run.model.qk_norm is True
    assert (run.optimizer.decay, run.optimizer.weight_decay) == ("coupled", 0.1)
    assert run.optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("names", "changes", "sentence"),
    [
        (
            ["qk-layernorm"],
            {"model.qk_norm": False},
            "intervention qk-layernorm sets model.qk_norm, which overrides sets to False; leave "
            "one out.",
        ),
        (
            ["coupled-decay", "z-loss"],
            {"optimizer.weight_decay": 0.5},
            "intervention coupled-decay sets optimizer.weight_decay, which overrides sets to 0.5;",
        ),
        (
            ["coupled-decay", "no-decay"],
            {},
            "interventions must set different fields, got coupled-decay and no-decay, which both "
            "set optimizer.weight_decay; leave one out.",
        ),
        (
            ["small-epsilon"],
            {"optimizer": Optimizer(lr=0.5)},
            "intervention small-epsilon sets optimizer.epsilon, which overrides sets to 1e-08;",
        ),
        (["z-loss", "z-loss"], {}, "intervention must be given once, got z-loss twice; leave one"),
    ],
)
def test_an_override_never_quietly_undoes_an_intervention(names, changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        resolve("lm-tiny", interventions=names, overrides=changes)


def test_an_override_that_says_what_an_intervention_says_is_fine():
    changes = {"model.qk_norm": True, "steps": 40, "optimizer.lr": 0.5}
    run = resolve("lm-tiny", interventions=["qk-layernorm", "long-warmup"], overrides=changes)
    assert (run.model.qk_norm, run.schedule.warmup_steps, run.optimizer.lr) == (True, 10, 0.5)
    nothing = {"optimizer.weight_decay": 0}
    run = resolve("lm-tiny", interventions=["no-decay"], overrides=nothing)
    assert run.optimizer.weight_decay == 0


def test_an_intervention_that_the_model_has_no_field_for_is_named():
    sentence = (
        "intervention qk-layernorm needs a field model.qk_norm, which ConvNetConfig doesn't have."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        resolve("cnn-tiny", interventions=["z-loss", "qk-layernorm"])


@pytest.mark.parametrize("field", ["qk_norm", "head_dim", "norm", "mlp", "vocab_size"])
def test_a_field_of_another_model_is_not_taken_for_the_dial(field):
    with pytest.raises(ValueError, match=rf"^model.{field} is no field of ConvNetConfig\."):
        resolve("cnn-tiny", overrides={f"model.{field}": 1})


def test_interventions_that_set_different_fields_apply_in_any_order():
    first = resolve("lm-tiny", interventions=["coupled-decay", "z-loss"])
    second = resolve("lm-tiny", interventions=["z-loss", "coupled-decay"])
    assert first == second
    assert (first.optimizer.weight_decay, first.loss.z_loss) == (0.1, 1e-4)
    long = resolve("lm-tiny", interventions=["long-warmup"], overrides={"steps": 40})
    assert long.schedule.warmup_steps == 10
    # Of a complete run, too, whose own warm-up and length need not fit the ones asked for.
    own = lm_tiny(400)
    long = resolve(own, interventions=["long-warmup"], overrides={"steps": 40})
    assert (long.steps, long.schedule.warmup_steps) == (40, 10)
    short = resolve(own, overrides={"steps": 20, "schedule.warmup_steps": 2})
    assert (short.steps, short.schedule.warmup_steps) == (20, 2)


def test_an_override_of_the_size_is_the_ladder_and_a_width_wins_over_it():
    assert resolve("lm-tiny", overrides={"model.size": 32}) == resolve("lm-tiny", size=32)
    assert resolve("lm-tiny", overrides={"model.size": 32, "model.width": 48}).model.width == 48
    with pytest.raises(ValueError, match=r"model.size must be a whole number, got 16.5"):
        resolve("lm-tiny", overrides={"model.size": 16.5})
    with pytest.raises(ValueError, match=r"model.size must be given once, got size 16 and 32; "):
        resolve("lm-tiny", size=16, overrides={"model.size": 32})


@pytest.mark.parametrize("path", ["model.sise", "model.sizes", "size", "sizes"])
def test_a_misspelt_size_is_told_of_the_dial(path):
    with pytest.raises(
        ValueError, match=rf"no field {path}\. .*model\.size.*It is sizes .*and size of"
    ):
        resolve("lm-tiny", overrides={path: 32})


@pytest.mark.parametrize(
    ("path", "nearest"), [("batch_siz", "batch_size"), ("model.widht", "model.width")]
)
def test_other_misspelt_fields_are_told_of_theirs(path, nearest):
    with pytest.raises(ValueError, match=rf"Did you mean {nearest}\?"):
        resolve("lm-tiny", overrides={path: 32})


def test_steps_move_warm_up_and_validations_with_them():
    assert resolve("lm-tiny", overrides={"steps": 400}) == lm_tiny(400)
    fixed = resolve("lm-tiny", overrides={"steps": 400, "eval_every": 7})
    assert (fixed.eval_every, fixed.schedule.warmup_steps) == (7, 20)


@pytest.mark.parametrize("text", ["400", "400.0", "4e2"])
def test_steps_written_as_a_float_are_the_same_steps(text):
    assert resolve("lm-tiny", overrides=parse_assignments([f"steps={text}"])) == lm_tiny(400)


@pytest.mark.parametrize("steps", [0, -5, 2.5, "many", True])
def test_bad_steps_are_named(steps):
    with pytest.raises(ValueError, match=r"^steps must be"):
        resolve("lm-tiny", overrides={"steps": steps})


def test_a_whole_run_is_a_preset():
    run = lm_tiny(20)
    assert resolve(run) == run
    assert resolve(run, overrides={"seed": 3}).seed == 3


def test_a_file_gives_a_run_or_a_function_of_steps(tmp_path):
    file = tmp_path / "own_preset_for_test_resolve.py"
    file.write_text(
        "from foretune.tuner.config.presets import lm_tiny\n"
        "RUN = lm_tiny(20)\n"
        "def short(steps=10): return lm_tiny(steps)\n"
        "NOT_A_RUN = 3\n"
    )
    assert resolve(str(file)) == lm_tiny(20)
    assert resolve(f"{file}:short", overrides={"steps": 30}) == lm_tiny(30)
    assert resolve(f"{file}:short") == lm_tiny(10)
    with pytest.raises(ValueError, match="must define ABSENT"):
        resolve(f"{file}:ABSENT")


@pytest.mark.parametrize("body", ["RUN = 3", "class RUN: pass", "def RUN(steps=10): return None"])
def test_a_file_that_gives_no_run_is_one_sentence(tmp_path, request, body):
    file = tmp_path / f"no_run_{request.node.callspec.indices['body']}_for_test_resolve.py"
    file.write_text(body + "\n")
    with pytest.raises(ValueError, match=r"preset must .*no_run_"):
        resolve(str(file))


def test_two_files_of_one_name_are_not_mistaken_for_each_other(tmp_path):
    for name, steps in (("a", 20), ("b", 30)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "same_name_for_test_resolve.py"
        file.write_text(
            f"from foretune.tuner.config.presets import lm_tiny\nRUN = lm_tiny({steps})\n"
        )
    assert resolve(str(tmp_path / "a" / file.name)).steps == 20
    try:
        steps = resolve(str(tmp_path / "b" / file.name)).steps
    except ValueError as refusal:
        assert "same_name_for_test_resolve" in str(refusal)  # noqa: PT017
    else:
        assert steps == 30


def test_values_are_literals_or_words():
    assert parse_value(" 1e-3") == 1e-3
    assert parse_value("True") is True
    assert parse_value("coupled") == "coupled"
    assert parse_value("/a/b c.txt") == "/a/b c.txt"
    assert parse_assignments(["a.b=1", "c=x=y"]) == {"a.b": 1, "c": "x=y"}
    assert parse_grids(["a=1,2.5, x"]) == {"a": [1, 2.5, "x"]}
    assert parse_grids(["a="]) == {"a": []}
    assert parse_grids(["a=1,True", "b=1"]) == {"a": [1, True], "b": [1]}
    for bad in ("steps", "=3"):
        with pytest.raises(ValueError, match=r"^overrides must look like"):
            parse_assignments([bad])
        with pytest.raises(ValueError, match=r"grids must look like"):
            parse_grids([bad])


@pytest.mark.parametrize(
    ("parse", "texts", "sentence"),
    [
        (
            parse_assignments,
            ["quantizer=a", "quantizer=b"],
            "overrides must name a field once, got quantizer=a and quantizer=b; leave one out.",
        ),
        (
            parse_grids,
            ["x=1,2", "y=1", "x=3"],
            "grids must name a field once, got x=1,2 and x=3; leave one out.",
        ),
        (
            parse_grids,
            ["x=1e-3,2,0.001"],
            "grids x must give each value once, got 0.001 twice; leave one out.",
        ),
        (parse_grids, ["x=a,b,a"], "grids x must give each value once, got 'a' twice; leave one"),
    ],
)
def test_what_is_given_twice_is_refused_in_one_sentence(parse, texts, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        parse(texts)
