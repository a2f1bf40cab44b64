"""Token streams: what a batch is, and that it is a function of seed and step alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from token_files import write_tokens

from foretune.tuner.config.tokens import Data
from foretune.tuner.data.tokens import TokenStream, load_corpus

torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]


def counting(folder: Path, n: int = 1000, *, length: int = 8, windows: int = 5) -> Data:
    """A token file that counts up: a token says where it stood."""
    path = write_tokens(folder / "counting.npy", np.arange(n))
    return Data(
        name="tokens",
        path=str(path),
        vocab_size=n,
        sequence_length=length,
        validation_sequences=windows,
    )


def test_batches_are_windows_of_the_training_text_with_targets_one_ahead(tmp_path):
    stream = TokenStream(counting(tmp_path), batch_size=6)
    inputs, targets = stream.batch(0, 0)
    assert inputs.shape == targets.shape == (6, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
    assert torch.equal(targets, inputs + 1)
    assert int(targets.max()) < 950


def test_batches_reach_the_first_and_the_last_token_of_the_training_text(tmp_path):
    stream = TokenStream(counting(tmp_path, 200), batch_size=8)
    inputs, targets = zip(*(stream.batch(0, step) for step in range(500)), strict=True)
    starts = torch.cat(inputs)[:, 0]
    assert set(starts.tolist()) == set(range(190 - 8))
    assert int(torch.cat(targets).max()) == 189


def test_batch_t_is_a_function_of_seed_and_t_alone(tmp_path):
    data = counting(tmp_path)
    stream = TokenStream(data, batch_size=4)
    forward = {t: stream.batch(3, t)[0] for t in range(6)}
    for t in reversed(range(6)):
        assert torch.equal(stream.batch(3, t)[0], forward[t])
        torch.rand(1)
        np.random.default_rng().random()
        assert torch.equal(TokenStream(data, batch_size=4).batch(3, t)[0], forward[t])


def test_seeds_and_steps_draw_different_batches(tmp_path):
    stream = TokenStream(counting(tmp_path), batch_size=4)
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2**62, 0), (2**62 + 1, 0)]
    drawn = {tuple(stream.batch(*pair)[0][:, 0].tolist()) for pair in pairs}
    assert len(drawn) == len(pairs)


@pytest.mark.slow
def test_another_process_sees_the_same_batches_and_the_same_standard_library(tmp_path):
    data = counting(tmp_path)
    script = (
        "import json; from foretune.tuner.data.tokens import *\n"
        f"stream = TokenStream({data!r}, batch_size=4)\n"
        "print(json.dumps([stream.batch(7, 11)[0].tolist(), stream.corpus.sha256,"
        " load_corpus(Data()).sha256]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    batch, sha, stdlib_sha = json.loads(done.stdout)
    stream = TokenStream(data, batch_size=4)
    assert batch == stream.batch(7, 11)[0].tolist()
    assert sha == stream.corpus.sha256
    assert stdlib_sha == load_corpus(Data()).sha256


def test_validation_windows_are_fixed_and_span_the_held_out_text(tmp_path):
    data = counting(tmp_path, windows=7)
    inputs, targets = TokenStream(data, batch_size=4).validation
    again, _ = TokenStream(data, batch_size=2).validation
    assert torch.equal(inputs, again)
    assert inputs.shape == (7, 8)
    assert torch.equal(targets, inputs + 1)
    assert int(inputs.min()) == 950
    assert int(targets.max()) == 999


def test_prose_is_english_of_this_python_and_another_text_than_its_sources():
    prose, sources = load_corpus(Data(name="prose")), load_corpus(Data())
    assert b"The Python" in bytes(prose.train[:200_000])
    assert 4e5 < len(prose.train) + len(prose.validation) < 1e6
    assert len(prose.validation) == pytest.approx(len(prose.train) / 19, rel=0.2)
    assert prose.sha256 != sources.sha256
    assert 3.0 < prose.reference_loss < 3.5
    with pytest.raises(
        ValueError, match=r"data\.path must be empty for data\.name=prose, got '/x'"
    ):
        Data(name="prose", path="/x")
