"""A Run is complete, frozen and checked at the door; overrides go by dotted path."""

import dataclasses
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass

import pytest
from torch import nn

from foretune.models import TransformerConfig
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.override import dotted, override
from foretune.tuner.config.run import Loss, Run
from foretune.tuner.config.tokens import Data


@dataclass(frozen=True)
class OwnModel:
    """A user's model: no base class, no `max_positions`, no `vocab_size`."""

    hidden: int = 4

    def build(self) -> nn.Module:
        return nn.Linear(self.hidden, self.hidden)


class NotADataclass:
    def build(self) -> nn.Module:
        return nn.Linear(1, 1)


@dataclass(frozen=True)
class WithoutBuild:
    hidden: int = 4


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("seed", -1, "0 or more, got -1."),
        ("seed", 0.5, "a whole number, got 0.5."),
        ("steps", 0, "1 or more, got 0."),
        ("steps", True, "a whole number, got True."),
        ("steps", "100", "a whole number, got '100'."),
        ("batch_size", 0, "1 or more, got 0."),
        ("micro_batch_size", 0, "1 or more, got 0."),
        ("eval_every", 0, "1 or more, got 0."),
        ("telemetry_every", -1, "1 or more, got -1."),
        ("precision", "int4", "one of float32, bfloat16, got 'int4'."),
        ("probes", ("mlp",), "one of attention, block_output, logits, got 'mlp'."),
        ("optimizer.name", "sgd", "one of adamw, adamw-atan2, muon, got 'sgd'."),
        ("optimizer.lr", 0.0, "above 0, got 0.0."),
        ("optimizer.lr", -1e-3, "above 0, got -0.001."),
        ("optimizer.lr", float("nan"), "a finite number, got nan; write it like 3e-3."),
        ("optimizer.lr", float("inf"), "a finite number, got inf; write it like 3e-3."),
        ("optimizer.lr", "3e-3", "a finite number, got '3e-3'; write it like 3e-3."),
        ("optimizer.lr", None, "a finite number, got None; write it like 3e-3."),
        ("optimizer.lr", True, "a finite number, got True; write it like 3e-3."),
        ("optimizer.weight_decay", -1.0, "0 or more, got -1.0."),
        ("optimizer.decay", "l2", "one of independent, coupled, got 'l2'."),
        ("optimizer.beta1", 1.0, "below 1, got 1.0."),
        ("optimizer.beta1", -0.1, "0 or more, got -0.1."),
        ("optimizer.beta2", 1.5, "below 1, got 1.5."),
        ("optimizer.epsilon", -1e-8, "0 or more, got -1e-08."),
        ("optimizer.clip_norm", -1.0, "0 or more, got -1.0."),
        ("schedule.name", "step", "one of cosine, linear, wsd, constant, got 'step'."),
        ("schedule.warmup_steps", -1, "0 or more, got -1."),
        ("schedule.final_lr", -1e-5, "0 or more, got -1e-05."),
        ("loss.z_loss", -1e-4, "0 or more, got -0.0001."),
    ],
    ids=str,
)
def test_a_value_that_breaks_a_rule_is_refused_in_one_sentence(path, value, rule):
    with pytest.raises(ValueError, match=rf"^{re.escape(f'{path} must be {rule}')}$"):
        override(Run(), {path: value})


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "micro_batch_size",
            3,
            "batch_size must be a multiple of micro_batch_size, got 8 and 3; set both.",
        ),
        (
            "micro_batch_size",
            16,
            "batch_size must be a multiple of micro_batch_size, got 8 and 16; set both.",
        ),
        (
            "steps",
            10,
            "schedule.warmup_steps must be below steps, got 10 and 10; 5 % of steps is 1.",
        ),
        (
            "schedule.warmup_steps",
            200,
            "schedule.warmup_steps must be below steps, got 200 and 200; 5 % of steps is 10.",
        ),
        (
            "data.sequence_length",
            65,
            "model.max_positions must be at least data.sequence_length, got 64 and 65; set both.",
        ),
        (
            "model.vocab_size",
            255,
            "model.vocab_size must be at least data.vocab_size, got 255 and 256; set both.",
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused_in_one_sentence(path, value, sentence):
    with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}$"):
        override(Run(), {path: value})


@pytest.mark.parametrize("model", [NotADataclass(), WithoutBuild()])
def test_a_model_that_is_no_dataclass_with_build_is_refused(model):
    name = type(model).__name__
    with pytest.raises(
        ValueError, match=rf"^model must be a frozen .* with build\(\), got {name}.$"
    ):
        Run(model=model)


@pytest.mark.parametrize(
    ("path", "word", "nearest"),
    [
        ("optimizer.decay", "cupled", "coupled"),
        ("optimizer.name", "adam", "adamw"),
        ("schedule.name", "cosin", "cosine"),
        ("precision", "float31", "float32"),
        ("probes", ("logit",), "logits"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(path, word, nearest):
    with pytest.raises(ValueError, match=rf" Did you mean {nearest}\?$"):
        override(Run(), {path: word})


def test_values_at_the_edge_of_a_rule_are_accepted():
    Run(
        steps=1,
        batch_size=1,
        micro_batch_size=1,
        eval_every=1,
        telemetry_every=1,
        schedule=Schedule(warmup_steps=0, final_lr=0.0),
        optimizer=Optimizer(weight_decay=0.0, beta1=0.0, beta2=0.0, epsilon=0.0, clip_norm=0.0),
    )
    assert Run(model=OwnModel()).model == OwnModel()


def test_a_run_is_hashable_frozen_and_pickles():
    run, equal = (
        Run(optimizer=Optimizer(lr=3e-3), probes=("logits",), model=TransformerConfig(width=32))
        for _ in range(2)
    )
    assert run == equal
    assert hash(run) == hash(equal)
    assert len({run, equal, Run()}) == 2
    again = pickle.loads(pickle.dumps(run))
    assert again == run
    assert repr(again) == repr(run)
    for part, name in ((run, "steps"), (run.optimizer, "lr"), (run.model, "width")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)
    with pytest.raises((AttributeError, TypeError)):
        run.learning_rate = 1e-3  # type: ignore[attr-defined]


def test_parts_are_built_by_keyword_only():
    for part in (Run, Optimizer, Schedule, Loss, Data, TransformerConfig):
        assert all(f.kw_only for f in dataclasses.fields(part))


def test_an_override_changes_its_field_and_nothing_else():
    before = dotted(Run())
    for path, value in {
        "steps": 77,
        "seed": 3,
        "optimizer.lr": 0.5,
        "schedule.name": "constant",
        "loss.z_loss": 1e-4,
        "model.qk_norm": True,
        "data.validation_sequences": 5,
    }.items():
        after = dotted(override(Run(), {path: value}))
        assert {k for k in after if after[k] != before[k]} == {path}
        assert after[path] == value


def test_no_change_gives_an_equal_run():
    run = Run()
    assert override(run, {}) == run
    assert override(run, dict(dotted(run))) == run


def test_fields_of_one_part_change_together():
    """Each of these alone breaks a rule."""
    run = override(Run(), {"model.width": 40, "model.head_dim": 20})
    assert (run.model.width, run.model.head_dim) == (40, 20)
    run = override(Run(), {"data.sequence_length": 128, "model.max_positions": 128})
    assert run.data.sequence_length == run.model.max_positions == 128
    run = override(Run(), {"batch_size": 6, "micro_batch_size": 3})
    assert (run.batch_size, run.micro_batch_size) == (6, 3)


def test_a_part_and_a_field_of_it_can_be_set_at_once():
    run = override(Run(), {"model": TransformerConfig(width=128), "model.depth": 1})
    assert (run.model.width, run.model.depth) == (128, 1)
    run = override(Run(), {"model": OwnModel(), "model.hidden": 9})
    assert run.model == OwnModel(9)


@pytest.mark.parametrize("group", ["model", "optimizer", "schedule", "loss", "data"])
def test_a_group_can_not_be_set_to_a_value(group):
    with pytest.raises(ValueError, match=rf"^{group} is a group of fields .* 'x'; set a field.$"):
        override(Run(), {group: "x"})


def test_numbers_are_accepted_across_int_and_float_where_nothing_is_lost():
    run = override(Run(), {"steps": 1e3, "optimizer.lr": 1, "optimizer.clip_norm": 0})
    assert (run.steps, type(run.steps)) == (1000, int)
    assert (run.optimizer.lr, type(run.optimizer.lr)) == (1.0, float)
    assert type(run.optimizer.clip_norm) is float
    with pytest.raises(ValueError, match=r"steps must be a whole number, got 99.5"):
        override(Run(), {"steps": 99.5})
    for number in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="steps must be a whole number"):
            override(Run(), {"steps": number})


def test_dotted_names_every_leaf_once():
    flat = dotted(Run())
    promised = """seed steps batch_size micro_batch_size eval_every telemetry_every model.width
        model.depth model.head_dim model.qk_norm data.name data.path data.sequence_length
        optimizer.name optimizer.lr optimizer.weight_decay optimizer.decay optimizer.beta1
        optimizer.beta2 optimizer.epsilon optimizer.clip_norm schedule.name schedule.warmup_steps
        schedule.final_lr loss.z_loss"""
    assert set(promised.split()) <= set(flat)
    assert not any(dataclasses.is_dataclass(value) for value in flat.values())
    assert override(Run(), flat) == Run()
