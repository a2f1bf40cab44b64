"""`foretune train`: what it refuses leaves nothing behind, and nothing of another's is touched."""

import errno
import os
import re
import shlex

import pytest
import torch
from commands import call, refused

from foretune.tuner.config.assignments import parse_assignments
from foretune.tuner.config.resolve import resolve
from foretune.tuner.records.run_json import run_id

torch.set_num_threads(1)
OWN_MODEL = """
from dataclasses import dataclass
from torch import nn
from foretune.tuner import Run

@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    vocab_size: int = 256

    def build(self):
        return nn.Sequential(nn.Embedding(256, 8), nn.LayerNorm(8))

RUN = Run(model=Config())
"""


@pytest.fixture
def data(text):
    steps = "steps=4 eval_every=4 telemetry_every=4 schedule.warmup_steps=1"
    return f"{steps} data.name=text data.path='{text}'"


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    # One file for all tests: a process imports a module of its name once.
    path = tmp_path_factory.mktemp("own") / "own_model_for_test_single.py"
    path.write_text(OWN_MODEL)
    return path


def test_a_run_that_cannot_be_built_leaves_no_folder(capsys, tmp_path, data):
    group = "quantizer=ternary-mean-bare quantization.granularity=group quantization.group_size=48"
    line = f"train lm-tiny --device cpu --out '{tmp_path}/a/b' --set {data} {group}"
    assert "quantization.group_size must divide" in refused(capsys, line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ("quantizer=ternary-mean", "quantization must change at least one layer"),
        ("probes=('logits',)", "probes must each have a tap in the model"),
    ],
)
def test_an_own_model_that_does_not_fit_leaves_no_folder(
    capsys, tmp_path, own_model, data, changes, sentence
):
    line = f"train {own_model}:RUN --device cpu --out '{tmp_path}/out' --set {data} \"{changes}\""
    assert sentence in refused(capsys, line)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_a_sweep_is_left_as_it_is(capsys, tmp_path, data):
    (tmp_path / "sweep.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    error = refused(capsys, f"train lm-tiny --out '{tmp_path}' --set {data}")
    assert f"--out must not hold a sweep, got {tmp_path}" in error
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_train_that_is_there_already_is_left_as_it_is(capsys, tmp_path, data):
    line = f"train lm-tiny --size 16 --device cpu --out '{tmp_path}' --set {data}"
    assert call(capsys, line)[0] == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert "--out must not hold this run already" in refused(capsys, line)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_is_one_sentence_and_stays(capsys, tmp_path, data):
    changes = parse_assignments(shlex.split(data))
    path = tmp_path / "runs" / run_id(resolve("lm-tiny", overrides=changes)) / "checkpoint/state.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK torn")
    error = refused(capsys, f"train lm-tiny --device cpu --out '{tmp_path}' --set {data}")
    assert f"{path} must be a checkpoint, got a damaged file" in error
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    capsys, tmp_path, data, monkeypatch
):
    """At the sync of its rows, before its second checkpoint."""
    longer = data.replace("steps=4", "steps=8")
    line = f"train lm-tiny --size 16 --device cpu --out '{tmp_path}/out' --set {longer}"
    sync, calls = os.fsync, []

    def full(descriptor):
        if "metrics.jsonl" in os.readlink(f"/proc/self/fd/{descriptor}"):
            calls.append(descriptor)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call(capsys, line)
    assert code == 3
    place = re.escape(str(tmp_path / "out" / "runs"))
    assert re.fullmatch(
        rf"foretune: The storage of {place}/\w+ must take what a sweep writes, got No space left "
        r"on device \(.+ MiB free\); .+, then give the same command, or for a sweep resume\n",
        err,
    )
    (run_dir,) = (tmp_path / "out" / "runs").iterdir()
    assert not (run_dir / "outcome.json").exists()
    code, out, _ = call(capsys, line)
    assert code == 0
    assert "step       4 " not in out  # It goes on from the checkpoint there.
    assert "finished: all 8 steps done" in out
