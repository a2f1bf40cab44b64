"""A run as JSON values: every field counts in its id and survives the round trip."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pytest
from torch import nn

from foretune.tuner.config.optimizer import Schedule
from foretune.tuner.config.override import override
from foretune.tuner.config.presets import PRESETS, lm_tiny
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.records.run_json import describe, from_config, run_id, to_config

ROOT = Path(__file__).parents[3]
FROZEN = json.loads((Path(__file__).parent / "frozen" / "run_ids.json").read_text())
"""Ids of runs that are on people's disks: an id that changes here orphans their records."""

CHANGES = {
    "seed": 1,
    "steps": 201,
    "batch_size": 16,
    "micro_batch_size": 4,
    "eval_every": 49,
    "telemetry_every": 9,
    "telemetry_detail": True,
    "precision": "bfloat16",
    "probes": ("logits",),
    "model.width": 48,
    "model.depth": 2,
    "model.head_dim": 32,
    "model.vocab_size": 257,
    "model.max_positions": 65,
    "model.qk_norm": True,
    "model.norm": "rmsnorm",
    "model.mlp": "swiglu",
    "model.init_gain": 1.5,
    "model.ladder": "joint",
    "model.v_norm": True,
    "model.attention": "relu2",
    "model.attention_scale": "linear",
    "model.zero_query": True,
    "model.attention_softcap": 50.0,
    "model.logit_softcap": 30.0,
    "model.kappa": 10.0,
    "model.norm_placement": "post",
    "model.sigma_reparam": True,
    "data.sequence_length": 63,
    "data.validation_sequences": 127,
    "optimizer.name": "adamw-atan2",
    "optimizer.lr": 0.02,
    "optimizer.weight_decay": 0.0,
    "optimizer.decay": "coupled",
    "optimizer.beta1": 0.8,
    "optimizer.beta2": 0.9,
    "optimizer.epsilon": 1e-9,
    "optimizer.clip_norm": 0.0,
    "optimizer.decay_on": "matrices",
    "optimizer.momentum": 0.9,
    "optimizer.update_clip": 1.0,
    "optimizer.lr_scale": "rms",
    "optimizer.qk_lr": 0.1,
    "optimizer.qk_clip": 100.0,
    "optimizer.skip_sigma": 6.0,
    "schedule.name": "constant",
    "schedule.warmup_steps": 9,
    "schedule.final_lr": 0.0,
    "schedule.decay_share": 0.1,
    "loss.z_loss": 1e-4,
    "parametrization.name": "mup-full",
    "parametrization.base_width": 32,
    "parametrization.base_depth": 2,
    "quantization.format": "ternary",
    "quantization.granularity": "row",
    "quantization.group_size": 32,
    "quantization.activations": "off",
    "quantization.scale": "median",
    "quantization.scale_dtype": "float32",
    "quantization.strength": 0.5,
    "quantization.strength_warmup": 0.5,
    "quantization.start": 0.25,
    "quantization.norm": True,
    "quantization.embedding": True,
    "quantization.head": True,
    "quantization.first_conv": True,
}
ONE_VALUE = {
    "data.name", "data.path", "data.vocab_size", "data.config", "data.column", "data.tokenizer",
    "data.tokens", "model.qk_norm_span", "optimizer.agc", "optimizer.adagc", "optimizer.zclip",
}  # fmt: skip
"""Fields with one value, or that move together with others."""


def leaves(value, prefix=""):
    for f in fields(value):
        inner = getattr(value, f.name)
        if is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}"


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 3


@dataclass(frozen=True, kw_only=True)
class Own:
    inner: Inner = Inner()
    shape: tuple[int, ...] = (1, 2)

    def build(self):
        return nn.Linear(self.inner.width, 2)


def through_json(run):
    return from_config(json.loads(json.dumps(to_config(run))))


def test_every_field_is_in_this_test():
    assert {*CHANGES, *ONE_VALUE} == set(leaves(Run()))


@pytest.mark.parametrize("path", CHANGES)
def test_every_field_changes_the_id_and_survives_the_round_trip(path):
    run = override(Run(), {path: CHANGES[path]})
    assert run_id(run) != run_id(Run())
    assert through_json(run) == run
    assert run_id(through_json(run)) == run_id(run)


def test_ids_of_all_changes_differ():
    runs = [Run(), *(override(Run(), {p: v}) for p, v in CHANGES.items())]
    runs.append(replace(Run(), data=Data(name="text", path="/a")))
    runs.append(replace(Run(), data=Data(name="text", path="/b")))
    assert len({run_id(run) for run in runs}) == len(runs)


@pytest.mark.slow
def test_the_id_is_the_same_in_another_process_with_another_hash_seed():
    script = (
        "from foretune.tuner.config.presets import lm_tiny\n"
        "from foretune.tuner.records.run_json import run_id\n"
        "print(run_id(lm_tiny(20)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    name = run_id(lm_tiny(20))
    assert answer.stdout.strip() == name
    assert len(name) == 12
    assert int(name, 16) >= 0


def test_ids_are_those_of_runs_on_disk():
    found = {
        "presets": {name: run_id(resolve(name)) for name in FROZEN["presets"]},
        "interventions of lm-tiny": {
            name: run_id(resolve("lm-tiny", interventions=[name]))
            for name in FROZEN["interventions of lm-tiny"]
        },
        "quantizers of lm-tiny": {
            name: run_id(resolve("lm-tiny", overrides={"quantizer": name}))
            for name in FROZEN["quantizers of lm-tiny"]
        },
        "quantizers of vit-tiny at size 32": {
            name: run_id(resolve("vit-tiny", size=32, overrides={"quantizer": name}))
            for name in FROZEN["quantizers of vit-tiny at size 32"]
        },
    }
    assert found == FROZEN
    assert all(map(len, FROZEN.values()))


def test_a_users_model_with_a_part_of_its_own_round_trips(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules["__main__"])
    run = Run(model=Own(inner=Inner(width=5), shape=(3, 4)), schedule=Schedule(warmup_steps=2))
    assert to_config(run)["model"]["kind"] == f"{__name__}:Own"


def test_a_users_module_with_postponed_annotations_round_trips(tmp_path, monkeypatch):
    (tmp_path / "postponed_for_test_rundir.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass(frozen=True)\n"
        "class Part:\n"
        "    width: int = 3\n"
        "@dataclass(frozen=True)\n"
        "class Whole:\n"
        "    part: Part = Part()\n"
        "    def build(self): return nn.Linear(self.part.width, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import postponed_for_test_rundir as module  # type: ignore[import-not-found]

    run = Run(model=module.Whole(module.Part(4)))
    assert through_json(run) == run


def test_a_nested_tuple_round_trips(tmp_path, monkeypatch):
    (tmp_path / "tuples_for_test_rundir.py").write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass(frozen=True)\n"
        "class Whole:\n"
        "    shapes: tuple = ((1, 2), (3, 4))\n"
        "    def build(self): return nn.Linear(3, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import tuples_for_test_rundir as module  # type: ignore[import-not-found]

    run = Run(model=module.Whole())
    assert through_json(run) == run
    assert run_id(run) == "42804cc2fe13"


def test_a_model_that_cannot_be_imported_is_one_sentence():
    config = to_config(Run())
    config["model"]["kind"] = "nowhere_at_all:Model"
    with pytest.raises(ValueError, match=r"model.kind must be importable here, got 'nowhere_at"):
        from_config(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_the_round_trip_and_says_what_it_costs(preset):
    run = resolve(preset, overrides={"quantizer": "ternary-median"})
    assert through_json(run) == run
    record, plain = describe(run), describe(resolve(preset))
    assert record.n_params == plain.n_params > 0
    assert record.flops_per_token > 0
    assert record.tokens_per_step == run.batch_size * run.data.predictions
    assert record.weight_bytes < plain.weight_bytes == 4 * plain.n_params_total
