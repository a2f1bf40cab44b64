"""Settings of a number format where there is none: refused, and never another run id."""

from dataclasses import fields, replace

import pytest

from foretune.models.quantization.config import Quantization
from foretune.tuner.config.inert import without_inert
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.config.quantizers import QUANTIZERS
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.records.run_json import run_id

OTHER = {
    "scale": "median",
    "granularity": "row",
    "group_size": 32,
    "scale_dtype": "float32",
    "activations": "off",
    "strength": 0.5,
    "strength_warmup": 0.25,
    "start": 0.25,
    "embedding": True,
    "head": True,
    "first_conv": True,
}
"""A value of each field that isn't its default."""


def test_every_field_of_a_number_format_is_among_the_cases():
    assert set(OTHER) | {"format", "norm"} == {f.name for f in fields(Quantization)}


@pytest.mark.parametrize("field", OTHER)
def test_a_setting_of_a_number_format_is_refused_in_full_precision(field):
    changes = {f"quantization.{field}": OTHER[field]}
    sentence = f"^quantization.{field}={OTHER[field]} needs a number format, got format=none; add "
    with pytest.raises(
        ValueError, match=sentence + "overrides quantizer=ternary-.* or leave it out"
    ):
        resolve("lm-tiny", overrides=changes)
    with pytest.raises(ValueError, match=sentence):
        resolve("lm-tiny", overrides={"quantizer": "none", **changes})
    with pytest.raises(ValueError, match=sentence):
        resolve("lm-tiny", overrides={"quantization": Quantization(**{field: OTHER[field]})})


def test_the_cure_is_the_quantizer_of_that_scale():
    with pytest.raises(ValueError, match="add overrides quantizer=ternary-median or"):
        resolve("lm-tiny", overrides={"quantization.scale": "median"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"quantizer": "ternary-mean", "quantization.group_size": 32},
            "quantization.group_size=32 needs granularity=group, got granularity=tensor; add "
            "overrides quantization.granularity=group or leave it out.",
        ),
        (
            {"quantizer": "int8", "quantization.scale_dtype": "float32"},
            "quantization.scale_dtype=float32 needs format=ternary or binary, got format=int8; add",
        ),
    ],
)
def test_a_setting_that_the_format_has_no_use_for_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        resolve("lm-tiny", overrides=changes)


def test_a_setting_that_has_an_effect_stays():
    ternary = {f"quantization.{f}": v for f, v in OTHER.items() if f not in ("group_size", "start")}
    quantization = resolve(
        "lm-tiny", overrides={"quantizer": "ternary-mean", **ternary}
    ).quantization
    assert all(getattr(quantization, path.partition(".")[2]) == v for path, v in ternary.items())
    groups = {"quantization.granularity": "group", "quantization.group_size": 32}
    run = resolve("lm-tiny", overrides={"quantizer": "int8", **groups})
    assert run.quantization.group_size == 32


def test_the_control_has_its_norms_where_it_is_told_to():
    """Of the fields of a placement, an embedding alone has no norm."""
    where = {"quantization.head": True, "quantization.first_conv": True}
    run = resolve("lm-tiny", overrides={"quantizer": "control", **where})
    assert (run.quantization.head, run.quantization.first_conv) == (True, True)
    with pytest.raises(ValueError, match=r"quantization.embedding=True needs a number format"):
        resolve("lm-tiny", overrides={"quantizer": "control", "quantization.embedding": True})


@pytest.mark.parametrize("field", OTHER)
def test_one_training_has_one_run_id(field):
    plain = lm_tiny(20)
    run = replace(plain, quantization=Quantization(**{field: OTHER[field]}))
    assert run_id(run) != run_id(plain)
    assert run_id(without_inert(run)) == run_id(plain)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_s_own_fields_all_have_an_effect(name):
    run = Run(quantization=QUANTIZERS[name].quantization)
    assert without_inert(run) == run


def test_the_default_may_be_said():
    assert resolve("lm-tiny", overrides={"quantization.start": 0}) == resolve("lm-tiny")
