"""Corpora: how texts, folders and token files are read, split and hashed."""

import hashlib
import math
import re
from collections import Counter

import numpy as np
import pytest
from token_files import text_data, write_tokens

from foretune.tuner.config.tokens import Data
from foretune.tuner.data.tokens import CHUNK, load_corpus, standard_library_files


def test_one_file_is_split_by_chunk(tmp_path):
    """Chunk i holds the byte i; every twentieth is held out, and nothing is lost."""
    content = b"".join(bytes([i]) * CHUNK for i in range(45)) + b"\xff" * 100
    corpus = load_corpus(text_data(tmp_path, content))
    assert set(corpus.validation.tolist()) == {19, 39}
    assert Counter(corpus.train.tolist()) + Counter(corpus.validation.tolist()) == Counter(content)
    assert not set(corpus.train.tolist()) & {19, 39}


def test_a_short_file_has_a_validation_split_too(tmp_path):
    corpus = load_corpus(text_data(tmp_path, bytes(range(200))))
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


def test_hidden_folders_are_no_text(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"G" * 500)
    for n in "ab":
        (tmp_path / f"{n}.txt").write_bytes(n.encode() * 500)
    corpus = load_corpus(Data(name="text", path=str(tmp_path)))
    assert set(corpus.train.tolist()) | set(corpus.validation.tolist()) == set(b"ab")


def test_a_folder_s_split_does_not_depend_on_where_it_lies(tmp_path):
    shas = []
    for where in ("here", "there"):
        (tmp_path / where).mkdir()
        for i in range(25):
            (tmp_path / where / f"{i}.txt").write_bytes(bytes([i]) * 50)
        shas.append(load_corpus(Data(name="text", path=str(tmp_path / where))).sha256)
    assert shas[0] == shas[1]


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


def test_the_standard_library_is_real_text_without_its_tests():
    named = standard_library_files()
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
    assert 2.5 < corpus.reference_loss < 4


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
    sha = load_corpus(text_data(tmp_path, content)).sha256
    assert sha == load_corpus(text_data(tmp_path, content, "same.txt")).sha256
    assert sha != load_corpus(text_data(tmp_path, content[:-1] + b"x", "other.txt")).sha256
    (tmp_path / "two").mkdir()
    halves = {"p.txt": content[:500], "q.txt": content[500:]}
    for name, half in halves.items():
        (tmp_path / "two" / name).write_bytes(half)
    assert sha != load_corpus(Data(name="text", path=str(tmp_path / "two"))).sha256
    assert re.fullmatch("[0-9a-f]{64}", sha)


def test_unigram_entropy_is_the_cross_entropy_of_training_counts_plus_one(tmp_path):
    corpus = load_corpus(text_data(tmp_path, b"the cat sat on the mat and the rat " * 60))
    counts = Counter(corpus.train.tolist())
    size = max(counts) + 1
    nats = [-math.log((counts[b] + 1) / (len(corpus.train) + size)) for b in corpus.validation]
    assert corpus.reference_loss == pytest.approx(sum(nats) / len(nats), rel=1e-9)
