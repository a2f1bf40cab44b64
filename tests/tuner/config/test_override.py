"""What a path that names no field is answered with."""

import re

import pytest

from foretune.models import ConvNetConfig
from foretune.tuner.config.images import ImageData
from foretune.tuner.config.override import override
from foretune.tuner.config.run import Run


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("stpes", "steps"),
        ("optimzer.lr", "optimizer.lr"),
        ("optimizer.lrr", "optimizer.lr"),
        ("optimizer.weightdecay", "optimizer.weight_decay"),
        ("model.widht", "model.width"),
        ("mdoel.width", "model.width"),
        ("data.seqence_length", "data.sequence_length"),
        ("schedule.warm_up_steps", "schedule.warmup_steps"),
        ("loss.zloss", "loss.z_loss"),
        ("lr", "optimizer.lr"),
        ("weight_decay", "optimizer.weight_decay"),
        ("optimizer.lr.x", "optimizer.lr"),
    ],
)
def test_a_misspelt_field_names_the_nearest_one(path, nearest):
    with pytest.raises(ValueError, match=rf"no field .* Did you mean {re.escape(nearest)}\?$"):
        override(Run(), {path: 1})


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("optimizer.learning_rate", "optimizer.lr"),
        ("optimizer.larning_rate", "optimizer.lr"),
        ("learning_rate", "optimizer.lr"),
        ("optimizer.eps", "optimizer.epsilon"),
        ("eps", "optimizer.epsilon"),
        ("optimizer.wd", "optimizer.weight_decay"),
        ("warmup", "schedule.warmup_steps"),
        ("schedule.warmup", "schedule.warmup_steps"),
        ("model.hidden_size", "model.width"),
        ("max_steps", "steps"),
    ],
)
def test_another_program_s_name_for_a_field_is_answered_with_ours(path, field):
    with pytest.raises(ValueError, match=rf" Did you mean {re.escape(field)}\?$"):
        override(Run(), {path: 1})


def test_a_field_that_a_part_lacks_is_told_with_the_part_s_class():
    cnn = override(Run(), {"model": ConvNetConfig(), "data": ImageData(name="cluttered")})
    for run, path, sentence in (
        (Run(), "optimizer.lrr", "optimizer.lrr is no field of Optimizer. Did you mean"),
        (Run(), "stpes", "There is no field stpes. Did you mean steps?"),
        (cnn, "model.qk_norm", "model.qk_norm is no field of ConvNetConfig. There are: width,"),
    ):
        with pytest.raises(ValueError, match=rf"^{re.escape(sentence)}"):
            override(run, {path: 1})


def test_a_word_near_nothing_lists_what_there_is():
    with pytest.raises(
        ValueError, match=r"model.qqq is no field of .*There are: width, depth, head"
    ):
        override(Run(), {"model.qqq": 1})
    with pytest.raises(ValueError, match=r"no field qqqq. There are: seed, steps, .*loss.z_loss"):
        override(Run(), {"qqqq": 1})
