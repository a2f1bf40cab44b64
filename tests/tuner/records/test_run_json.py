"""run.json: counts and costs, and its bytes, whatever the version that wrote it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foretune.models import TransformerConfig
from foretune.models.export.save import export_model
from foretune.models.quantization.replace import quantize
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import PROBES, Run
from foretune.tuner.records.run_json import (
    Draw,
    Rejected,
    RunRecord,
    cost,
    describe,
    run_id,
)

FROZEN = Path(__file__).parent / "frozen"


def test_describe_counts_and_costs():
    record = describe(lm_tiny(20))
    assert record.run_id == run_id(lm_tiny(20))
    assert record.size == 64
    assert record.tokens_per_step == 8 * 64
    assert record.n_params < record.n_params_total
    assert cost(record) == record.flops_per_token * 8 * 64 * 20
    assert cost(describe(lm_tiny(40))) == 2 * cost(record)
    built = lm_tiny(20).model.build()
    assert record.n_params_total == sum(p.numel() for p in built.parameters())
    assert describe(Run(model=TransformerConfig(width=16), probes=PROBES)).size == 16


def test_the_bytes_of_ternary_weights_are_those_of_the_exported_file(tmp_path):
    run = resolve("lm-tiny", size=32, overrides={"quantizer": "ternary-mean"})
    model = run.model.build()
    quantize(model, run.quantization)
    size = export_model(tmp_path / "a.safetensors", model, run.model, run.quantization).size
    assert describe(run).weight_bytes == size.ternary_bytes + size.full_bytes


def trained():
    """A run of `foretune train`."""
    changes = {"steps": 12, "eval_every": 6, "data.name": "text", "data.path": "corpus.txt"}
    run = resolve("lm-tiny", size=16, overrides=changes)
    command = "foretune train lm-tiny --size 16"
    return replace(describe(run), command=command, data_sha256="5f" * 32)


def drawn():
    """A run of a search."""
    changes = {"quantizer": "ternary-median", "seed": 3}
    run = resolve("vit-tiny", size=32, interventions=["qk-layernorm"], overrides=changes)
    rejected = Rejected(params={"optimizer.lr": 0.5}, run_id="", why="width must be even")
    params = {"optimizer.lr": 0.0123, "part": 1}
    draw = Draw(number=4, params=params, rejected=(rejected,))
    return replace(describe(run), data_sha256="0a" * 32, draw=draw)


@pytest.mark.parametrize(("make", "file"), [(trained, "train_run.json"), (drawn, "drawn_run.json")])
def test_the_file_is_what_it_has_been_and_is_read_back(make, file, tmp_path):
    record, frozen = make(), (FROZEN / file).read_bytes()
    record.write(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == frozen
    assert RunRecord.read(tmp_path) == record
    RunRecord.read(tmp_path).write(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == frozen


def test_keys_of_a_newer_version_are_passed_over_and_those_an_older_one_lacks_have_defaults():
    record = drawn()
    facts = json.loads(json.dumps(record.to_json()))
    assert RunRecord.from_json({**facts, "carbon": 3, "run": "not ours"}) == record
    del facts["weight_bytes"], facts["draw"], facts["format"], facts["config"]["precision"]
    old = RunRecord.from_json(facts)
    assert old == replace(record, weight_bytes=None, draw=None)
    assert not {"weight_bytes", "draw", "command"} & old.to_json().keys()


@pytest.mark.parametrize("name", ["run_id", "config", "size", "n_params", "flops_per_token"])
def test_a_file_that_lacks_what_it_always_had_is_one_sentence(name):
    facts = trained().to_json()
    del facts[name]
    with pytest.raises(ValueError, match=f"^run.json must hold {name}, got "):
        RunRecord.from_json(facts)


def test_a_field_of_the_run_that_this_version_lacks_is_refused():
    facts = json.loads((FROZEN / "train_run.json").read_text())
    facts["config"]["quantization"]["rounding"] = "up"
    with pytest.raises(ValueError, match="got rounding of Quantization; use the version that"):
        RunRecord.from_json(facts)
