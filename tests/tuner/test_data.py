"""Token streams: what a batch is, how a text is split, and what each bad input is told."""

import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tuner.data import CHUNK, Data, TokenStream, _standard_library_files, load_corpus

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]


def write_tokens(path: Path, tokens: np.ndarray) -> Path:
    """In the true format of the suffix: numpy's own, or bare little-endian uint16."""
    if path.suffix == ".npy":
        np.save(path, tokens)
    else:
        path.write_bytes(tokens.astype("<u2").tobytes())
    return path


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


def text(folder: Path, content: bytes, name: str = "a.txt") -> Data:
    (folder / name).write_bytes(content)
    return Data(name="text", path=str(folder / name), sequence_length=16)


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


def test_another_process_sees_the_same_batches_and_the_same_standard_library(tmp_path):
    data = counting(tmp_path)
    script = (
        "import json; from tuner.data import *\n"
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


def test_one_file_is_split_by_chunk(tmp_path):
    """Chunk i holds the byte i; every twentieth is held out, and nothing is lost."""
    content = b"".join(bytes([i]) * CHUNK for i in range(45)) + b"\xff" * 100
    corpus = load_corpus(text(tmp_path, content))
    assert set(corpus.validation.tolist()) == {19, 39}
    assert Counter(corpus.train.tolist()) + Counter(corpus.validation.tolist()) == Counter(content)
    assert not set(corpus.train.tolist()) & {19, 39}


def test_a_short_file_has_a_validation_split_too(tmp_path):
    corpus = load_corpus(text(tmp_path, bytes(range(200))))
    assert len(corpus.validation) == 10
    assert len(corpus.train) == 190


def test_a_folder_is_split_by_file(tmp_path):
    for i in range(40):
        (tmp_path / "sub").mkdir(exist_ok=True)
        name = f"sub/{i}.py" if i % 2 else f"{i}.txt"
        (tmp_path / name).write_bytes(bytes([i]) * (100 + i))
    (tmp_path / ".hidden").write_bytes(b"\xff" * 100)
    corpus = load_corpus(Data(name="text", path=str(tmp_path)))
    train, validation = (Counter(a.tolist()) for a in (corpus.train, corpus.validation))
    assert len(validation) == 2
    assert not set(train) & set(validation)
    assert train + validation == Counter({i: 100 + i for i in range(40)})


def test_a_folder_s_split_does_not_depend_on_where_it_lies(tmp_path):
    shas = []
    for where in ("here", "there"):
        (tmp_path / where).mkdir()
        for i in range(25):
            (tmp_path / where / f"{i}.txt").write_bytes(bytes([i]) * 50)
        shas.append(load_corpus(Data(name="text", path=str(tmp_path / where))).sha256)
    assert shas[0] == shas[1]


def test_the_standard_library_is_real_text_without_its_tests():
    named = _standard_library_files()
    names = [name for name, _ in named]
    assert {"json/decoder.py", "argparse.py", "unittest/case.py"} <= set(names)
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert names == sorted(names)
    corpus = load_corpus(Data())
    size = len(corpus.train) + len(corpus.validation)
    assert size == sum(path.stat().st_size for _, path in named)
    assert 5e6 < size < 3e7
    assert 0.02 < len(corpus.validation) / size < 0.1
    # Bytes of English and Python: log 256 is 5.5 nats.
    assert 2.5 < corpus.unigram_entropy < 4


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
def test_npy_token_files_of_whole_numbers_are_read_as_they_are(tmp_path, dtype):
    tokens = (np.arange(400) * 7 % 250).astype(dtype)
    path = write_tokens(tmp_path / "t.npy", tokens)
    corpus = load_corpus(Data(name="tokens", path=str(path)))
    assert corpus.train.tolist() == tokens[:380].tolist()
    assert corpus.validation.tolist() == tokens[380:].tolist()


def test_bin_token_files_are_little_endian_uint16(tmp_path):
    tokens = np.arange(400) * 163 % 65_000
    path = write_tokens(tmp_path / "t.bin", tokens)
    assert path.stat().st_size == 800
    corpus = load_corpus(Data(name="tokens", path=str(path), vocab_size=65_000))
    assert np.concatenate((corpus.train, corpus.validation)).tolist() == tokens.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".bin"])
def test_token_files_stay_on_disk(tmp_path, suffix):
    path = write_tokens(tmp_path / f"t{suffix}", np.arange(400))
    corpus = load_corpus(Data(name="tokens", path=str(path), vocab_size=400))
    assert isinstance(corpus.train, np.memmap)
    assert isinstance(corpus.validation, np.memmap)


def test_the_hash_sees_a_byte_and_the_split(tmp_path):
    content = bytes(range(250)) * 4
    sha = load_corpus(text(tmp_path, content)).sha256
    assert sha == load_corpus(text(tmp_path, content, "same.txt")).sha256
    assert sha != load_corpus(text(tmp_path, content[:-1] + b"x", "other.txt")).sha256
    (tmp_path / "two").mkdir()
    halves = {"p.txt": content[:500], "q.txt": content[500:]}
    for name, half in halves.items():
        (tmp_path / "two" / name).write_bytes(half)
    assert sha != load_corpus(Data(name="text", path=str(tmp_path / "two"))).sha256
    assert re.fullmatch("[0-9a-f]{64}", sha)


def test_unigram_entropy_is_the_cross_entropy_of_training_counts_plus_one(tmp_path):
    corpus = load_corpus(text(tmp_path, b"the cat sat on the mat and the rat " * 60))
    counts = Counter(corpus.train.tolist())
    size = max(counts) + 1
    nats = [-math.log((counts[b] + 1) / (len(corpus.train) + size)) for b in corpus.validation]
    assert corpus.unigram_entropy == pytest.approx(sum(nats) / len(nats), rel=1e-9)


def too_high(folder: Path) -> Data:
    return Data(name="tokens", path=str(write_tokens(folder / "t.npy", np.arange(400))))


def bad_array(folder: Path, array: np.ndarray) -> Data:
    return Data(name="tokens", path=str(write_tokens(folder / "t.npy", array)))


def wrong_suffix(folder: Path) -> Data:
    (folder / "t.txt").write_bytes(b"1 2 3")
    return Data(name="tokens", path=str(folder / "t.txt"))


def empty_folder(folder: Path) -> Data:
    (folder / "empty").mkdir()
    return Data(name="text", path=str(folder / "empty"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda folder: Data(name="text", path=str(folder / "none.txt")),
            r"data.path must be a file or folder that exists, got '.*none.txt'\.",
        ),
        (
            lambda folder: Data(name="tokens", path=str(folder / "none.npy")),
            r"data.path must be a file or folder that exists, got '.*none.npy'\.",
        ),
        (empty_folder, r"data.path must hold at least one file, got the empty folder .*empty\."),
        (
            lambda folder: text(folder, b"too short"),
            r"The text must hold a batch of 4 x 17 tokens to train on and one window to validate "
            r"on, got 9 and 0 tokens; give more text or lower data\.sequence_length\.",
        ),
        (
            lambda folder: text(folder, b""),
            r"The text must hold .*, got 0 and 0 tokens; give more text "
            r"or lower data\.sequence_length\.",
        ),
        (
            lambda folder: text(folder, b"x" * 100),
            r"The text must hold .*, got 95 and 5 tokens; give more text "
            r"or lower data\.sequence_length\.",
        ),
        (
            too_high,
            r"data.vocab_size must cover every token, got 256 and tokens from 0 to 399 in "
            r".*t.npy; set data.vocab_size and model.vocab_size to 400 or more\.",
        ),
        (
            lambda folder: bad_array(folder, np.arange(257)),
            r"data.vocab_size must cover every token, got 256 and tokens from 0 to 256 in "
            r".*t.npy; set data.vocab_size and model.vocab_size to 257 or more\.",
        ),
        (wrong_suffix, r"data.path must end in .npy or .bin \(uint16\) for tokens, got .*t.txt\."),
        (
            lambda folder: bad_array(folder, np.zeros((10, 2), int)),
            r"data.path must hold one axis of whole numbers, got int64 of 2 axes in .*t.npy\.",
        ),
        (
            lambda folder: bad_array(folder, np.zeros(100)),
            r"data.path must hold one axis of whole numbers, got float64 of 1 axes in .*t.npy\.",
        ),
    ],
)
def test_a_bad_input_is_refused_in_one_sentence(tmp_path, make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        TokenStream(make(tmp_path), batch_size=4)


def test_a_text_that_just_fits_is_accepted(tmp_path):
    """20 chunks of 17 bytes: 19 to train on, one window to validate on."""
    data = text(tmp_path, bytes(range(170)) * 2)
    TokenStream(data, batch_size=19).batch(0, 0)
    with pytest.raises(ValueError, match=r"lower data\.sequence_length"):
        TokenStream(data, batch_size=20)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "c4"}, "data.name must be one of stdlib, text, tokens, got 'c4'."),
        ({"name": "text"}, "data.path must name the file of data.name=text, got nothing."),
        ({"name": "tokens"}, "data.path must name the file of data.name=tokens, got nothing."),
        (
            {"path": "x.txt"},
            "data.path must be empty for data.name=stdlib, got 'x.txt'; set data.name=text to read "
            "it.",
        ),
        (
            {"vocab_size": 1000},
            "data.vocab_size must be 256 for bytes, got 1000; only data.name=tokens has another.",
        ),
        ({"sequence_length": 0}, "data.sequence_length must be a whole number from 1 up, got 0."),
        (
            {"validation_sequences": 1.5},
            "data.validation_sequences must be a whole number from 1 up, got 1.5.",
        ),
        ({"vocab_size": True}, "data.vocab_size must be a whole number from 1 up, got True."),
    ],
)
def test_a_config_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Data(**fields)


def test_the_stream_does_not_depend_on_the_order_of_a_listing(tmp_path):
    """Files are taken by name: written in either order, they are the same text."""
    digests = []
    for folder, names in (("a", ["x", "y", "z"]), ("b", ["z", "y", "x"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(name.encode() * 500)
        corpus = load_corpus(Data(name="text", path=str(tmp_path / folder)))
        digests.append(hashlib.sha256(corpus.train.tobytes()).hexdigest())
    assert digests[0] == digests[1]
