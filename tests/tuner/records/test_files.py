"""JSON that is whole, metrics that mend, and values of other versions."""

import json
from dataclasses import dataclass, field

import pytest

from foretune.tuner.records.files import MetricsFile, known_fields, read_json, write_json


def test_json_is_whole_finite_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damaged", [b'{"a": ', b"", b'{"a": "\xff"}'])
def test_a_damaged_json_is_named(tmp_path, damaged):
    (tmp_path / "a.json").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a.json must be JSON, got a damaged file"):
        read_json(tmp_path / "a.json")


def test_json_that_is_no_object_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a.json must hold a JSON object, got \[1\]; restore"):
        read_json(tmp_path / "a.json")


@dataclass
class Facts:
    size: int
    command: str = ""
    parts: list[int] = field(default_factory=list)


def test_known_fields_are_those_that_are_there_under_their_own_key():
    assert known_fields({"size": 3, "color": 1}, Facts, "a.json") == {"size": 3}
    found = known_fields({"rung": 3, "parts": [1]}, Facts, "a.json", size="rung")
    assert found == {"size": 3, "parts": [1]}


@pytest.mark.parametrize(("facts", "got"), [({"command": "x"}, "command"), ({}, "nothing")])
def test_a_missing_one_without_a_default_is_one_sentence(facts, got):
    with pytest.raises(ValueError, match=f"^a.json must hold size, got {got}; restore it, or use"):
        known_fields(facts, Facts, "a.json")


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


def test_rows_are_kept_as_they_are_to_the_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path)
    sink(0, {"loss": 0.1 + 0.2, "tokens_seen": 512, "lr": 1e-05, "val_loss": -0.0})
    sink(1, {"loss": 1e22, "seconds": 5e-324})
    sink.close()
    whole = path.read_bytes()
    MetricsFile(path, keep_below=2).close()
    assert path.read_bytes() == whole


def test_a_damaged_row_before_the_last_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl must hold one JSON object .* line 2 of 3"):
        MetricsFile(path, keep_below=2)
    assert path.read_text().startswith('{"step": 0}\n{"st\n')
