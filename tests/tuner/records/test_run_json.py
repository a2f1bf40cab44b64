"""What a run leaves on disk: counts and costs in run.json, whole JSON, metrics that mend."""

import json
from pathlib import Path

import pytest

from foretune.models import TransformerConfig
from foretune.models.export.save import export_model
from foretune.models.quantization.replace import quantize
from foretune.tuner.config.presets import lm_tiny
from foretune.tuner.config.resolve import resolve
from foretune.tuner.config.run import PROBES, Run
from foretune.tuner.records.files import MetricsFile, read_json, write_json
from foretune.tuner.records.run_json import cost, describe, run_id

ROOT = Path(__file__).parents[3]


def test_describe_counts_and_costs():
    facts = describe(lm_tiny(20))
    assert facts["run_id"] == run_id(lm_tiny(20))
    assert facts["size"] == 64
    assert facts["tokens_per_step"] == 8 * 64
    assert facts["n_params"] < facts["n_params_total"]
    assert cost(facts) == facts["flops_per_token"] * 8 * 64 * 20
    assert cost(describe(lm_tiny(40))) == 2 * cost(facts)
    built = lm_tiny(20).model.build()
    assert facts["n_params_total"] == sum(p.numel() for p in built.parameters())
    assert describe(Run(model=TransformerConfig(width=16), probes=PROBES))["size"] == 16


def test_json_is_whole_finite_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a.json must be JSON, got a damaged file"):
        read_json(tmp_path / "a.json")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, steps, **options):
    sink = MetricsFile(path, **options)
    for step in steps:
        sink(step, {"loss": 1.0 / (step + 1)})
    sink.close()


def test_metrics_are_cut_at_the_checkpoint_and_a_torn_line_goes(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    write(path, range(6))
    whole = path.read_bytes()
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    write(path, range(4, 6), keep_below=4)
    assert path.read_bytes() == whole
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    write(path, [6], keep_below=6)
    assert [row["step"] for row in rows(path)] == list(range(7))
    write(path, [0])
    assert [row["step"] for row in rows(path)] == [0]
    assert [p.name for p in path.parent.iterdir()] == ["metrics.jsonl"]


def test_flushed_rows_are_there_for_readers_and_nan_is_refused(tmp_path):
    sink = MetricsFile(tmp_path / "metrics.jsonl")
    sink(0, {"loss": 1.5})
    sink.flush()
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.5}]
    with pytest.raises(ValueError, match="Out of range float values"):
        sink(1, {"loss": float("inf")})
    sink.close()
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.5}]


def test_the_bytes_of_ternary_weights_are_those_of_the_exported_file(tmp_path):
    run = resolve("lm-tiny", size=32, overrides={"quantizer": "ternary-mean"})
    model = run.model.build()
    quantize(model, run.quantization)
    size = export_model(tmp_path / "a.safetensors", model, run.model, run.quantization).size
    assert describe(run)["weight_bytes"] == size.ternary_bytes + size.full_bytes
