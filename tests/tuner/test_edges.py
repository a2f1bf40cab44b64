"""Tests for the suggested patches (each fails on HEAD)."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import TransformerConfig
from models.matmul import linear
from tuner.config import PROBES, Optimizer, Run, Schedule, override
from tuner.data import Data, load_corpus
from tuner.train import Training, pick_device

torch.set_num_threads(1)


def small(path, changes=None):
    run = Run(
        steps=12,
        batch_size=4,
        micro_batch_size=4,
        eval_every=4,
        telemetry_every=3,
        model=TransformerConfig(width=16, depth=2, head_dim=8, max_positions=16),
        data=Data(name="text", path=str(path), sequence_length=16, validation_sequences=8),
        schedule=Schedule(warmup_steps=2),
    )
    return override(run, changes or {})


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "os.txt"
    path.write_bytes(Path(os.__file__).read_bytes()[:40_000])
    return path


def test_a_final_lr_above_the_peak_is_refused():
    with pytest.raises(
        ValueError, match=r"^schedule.final_lr must be at most optimizer.lr, got 1e-05 and 1e-06; "
    ):
        Run(optimizer=Optimizer(lr=1e-6))
    Run(optimizer=Optimizer(lr=1e-6), schedule=Schedule(name="constant"))
    Run(optimizer=Optimizer(lr=1e-5))


def test_a_finished_run_is_not_saved(text, tmp_path):
    training = Training(small(text), lambda s, m: None, device="cpu")
    while training.outcome is None:
        training.advance()
    with pytest.raises(AssertionError, match="finished"):
        training.save(tmp_path)
    assert not list(tmp_path.iterdir())


def tokens(path, array, vocab=256):
    np.save(path / "t.npy", array)
    return Data(name="tokens", path=str(path / "t.npy"), vocab_size=vocab)


@pytest.mark.parametrize(
    ("array", "seen"),
    [
        (np.array([-1] + [3] * 999), "-1 to 3"),
        (np.array([4_000_000_000] + [3] * 999, dtype=np.uint32), "3 to 4000000000"),
    ],
)
def test_tokens_out_of_range(tmp_path, array, seen):
    with pytest.raises(
        ValueError,
        match=f"^data.vocab_size must cover every token, got 256 and tokens from {seen} in",
    ):
        load_corpus(tokens(tmp_path, array))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.bin", b""),
        ("t.bin", b"abc"),
        ("t.npy", b""),
        ("t.npy", b"garbage"),
        ("t.npy", b"\x93NUMPY"),
    ],
)
def test_damaged_token_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"^data.path must hold whole tokens .*{name} of {len(content)} bytes; write",
    ):
        load_corpus(Data(name="tokens", path=str(tmp_path / name)))


def test_folder_as_token_file_and_empty_array(tmp_path):
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(ValueError, match=r"^data.path must end in .npy or .bin"):
        load_corpus(Data(name="tokens", path=str(tmp_path / "d.npy")))
    assert len(load_corpus(tokens(tmp_path, np.zeros(0, int))).train) == 0


def test_hidden_folders_are_no_text(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"G" * 500)
    for n in "ab":
        (tmp_path / f"{n}.txt").write_bytes(n.encode() * 500)
    corpus = load_corpus(Data(name="text", path=str(tmp_path)))
    assert set(corpus.train.tolist()) | set(corpus.validation.tolist()) == set(b"ab")


@dataclass
class Mutable:
    hidden: int = 3

    def build(self):
        return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Run(model=TransformerConfig),
            r"model must be a config, got a class; write TransformerConfig\(\)\.",
        ),
        (
            lambda: Run(model=Mutable()),
            r"model must be a frozen dataclass with build\(\), got Mutable\.",
        ),
        (lambda: Run(optimizer=Schedule()), r"optimizer must be a Optimizer, got Schedule.*"),
        (
            lambda: Run(probes=["logits"]),
            r"probes must be a tuple of names, got \['logits'\]; write .*",
        ),
        (lambda: Run(probes="logits"), r"probes must be a tuple of names, got 'logits'; write .*"),
        (lambda: Run(seed=2**63), r"seed must be below 2\^63, got 9223372036854775808\."),
    ],
)
def test_wrong_types(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make()


def test_numpy_numbers_and_lists_become_python_s():
    run = override(
        Run(),
        {
            "optimizer.lr": np.float64(0.01),
            "steps": np.int64(100),
            "optimizer.clip_norm": np.float32(0.5),
            "probes": ["logits"],
        },
    )
    assert repr(run) == repr(
        Run(steps=100, probes=("logits",), optimizer=Optimizer(lr=0.01, clip_norm=0.5))
    )
    with pytest.raises(ValueError, match="steps must be a whole number, got inf"):
        override(Run(), {"steps": float("inf")})
    with pytest.raises(ValueError, match="steps must be a whole number, got nan"):
        override(Run(), {"steps": float("nan")})


def test_a_run_with_numpy_numbers_resumes(text, tmp_path):
    run = override(small(text), {"optimizer.lr": np.float64(0.01)})
    training = Training(run, lambda s, m: None, device="cpu")
    training.advance()
    training.save(tmp_path)
    assert Training(small(text), lambda s, m: None, device="cpu", restore=tmp_path).step == 4
    with pytest.raises(ValueError, match=r"^optimizer.lr must be a finite number, got np.float64"):
        Optimizer(lr=np.float64(0.01))


def test_second_derivatives_and_empty_batches():
    x = torch.randn(4, 64, requires_grad=True)
    w = (torch.randn(128, 64) / 8).requires_grad_()

    def second(f):
        y = f(x, w).pow(3).sum()
        g = torch.autograd.grad(y, (x, w), create_graph=True)
        return torch.autograd.grad(sum(t.pow(2).sum() for t in g), (x, w))

    torch.testing.assert_close(second(linear), second(F.linear), rtol=1e-3, atol=1e-3)
    assert linear(torch.randn(0, 64), w).shape == (0, 128)


def test_micro_batches_read_the_same_rms(text):
    out = []
    for micro in (4, 1):
        rows = []
        t = Training(
            small(text, {"micro_batch_size": micro}),
            lambda s, m, rows=rows: rows.append(dict(m)),
            device="cpu",
        )
        t.advance()
        out.append(rows[0])
    for name in ("output_norm_rms_layer1", "logits_rms", "log_z_mean", "attention_entropy"):
        assert out[0][name] == pytest.approx(out[1][name], rel=1e-5)


def test_bfloat16_readings_are_float32(text):
    rows = []
    t = Training(
        small(text, {"precision": "bfloat16", "probes": PROBES}),
        lambda s, m: rows.append(dict(m)),
        device="cpu",
    )
    t.advance()
    values = [rows[0][f"max_attention_logit_layer{i}"] for i in range(2)]
    assert all(float(torch.tensor(v).bfloat16()) != v for v in values)


def test_devices():
    for name in ("gpu", "cuda:x", "cpu:a"):
        with pytest.raises(ValueError, match=r"^device must be auto, cpu, cuda or cuda:N, got"):
            pick_device(name)
