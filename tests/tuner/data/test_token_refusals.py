"""Data that can't be used is refused in a sentence: files, and configs."""

import re
from pathlib import Path

import numpy as np
import pytest
from token_files import text_data, token_data

from foretune.tuner.config.tokens import Data
from foretune.tuner.data.tokens import TokenStream, load_corpus


def too_high(folder: Path) -> Data:
    return token_data(folder, np.arange(400))


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
            lambda folder: text_data(folder, b"too short"),
            r"The text must hold a batch of 4 x 17 tokens to train on and one window to validate "
            r"on, got 9 and 0 tokens; give more text or lower data\.sequence_length\.",
        ),
        (
            lambda folder: text_data(folder, b""),
            r"The text must hold .*, got 0 and 0 tokens; give more text "
            r"or lower data\.sequence_length\.",
        ),
        (
            lambda folder: text_data(folder, b"x" * 100),
            r"The text must hold .*, got 95 and 5 tokens; give more text "
            r"or lower data\.sequence_length\.",
        ),
        (
            too_high,
            r"data.vocab_size must cover every token, got 256 and tokens from 0 to 399 in "
            r".*t.npy; set data.vocab_size and model.vocab_size to 400 or more\.",
        ),
        (
            lambda folder: token_data(folder, np.arange(257)),
            r"data.vocab_size must cover every token, got 256 and tokens from 0 to 256 in "
            r".*t.npy; set data.vocab_size and model.vocab_size to 257 or more\.",
        ),
        (wrong_suffix, r"data.path must end in .npy or .bin \(uint16\) for tokens, got .*t.txt\."),
        (
            lambda folder: token_data(folder, np.zeros((10, 2), int)),
            r"data.path must hold one axis of whole numbers, got int64 of 2 axes in .*t.npy\.",
        ),
        (
            lambda folder: token_data(folder, np.zeros(100)),
            r"data.path must hold one axis of whole numbers, got float64 of 1 axes in .*t.npy\.",
        ),
    ],
)
def test_a_bad_input_is_refused_in_one_sentence(tmp_path, make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        TokenStream(make(tmp_path), batch_size=4)


def test_a_text_that_just_fits_is_accepted(tmp_path):
    """20 chunks of 17 bytes: 19 to train on, one window to validate on."""
    data = text_data(tmp_path, bytes(range(170)) * 2)
    TokenStream(data, batch_size=19).batch(0, 0)
    with pytest.raises(ValueError, match=r"lower data\.sequence_length"):
        TokenStream(data, batch_size=20)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"name": "c5"},
            "data.name must be one of stdlib, prose, text, tokens, c4, hf, got 'c5'.",
        ),
        (
            {"name": "hf", "tokenizer": "t.json", "tokens": 9},
            "data.path must name the data set of data.name=hf, got nothing.",
        ),
        (
            {"name": "c4", "tokens": 9},
            "data.tokenizer must be given for data.name=c4, got nothing; set it to T5's "
            "tokenizer.json, say.",
        ),
        (
            {"name": "c4", "tokenizer": "t.json"},
            "data.tokens must be given for data.name=c4, got nothing; set it to how many to train "
            "on, like 10_000_000.",
        ),
        ({"tokens": -1}, "data.tokens must be a whole number from 0 up, got -1."),
        (
            {"name": "text", "path": "x", "tokenizer": "t.json"},
            "data.tokenizer must be left out for data.name=text, got 't.json'; it belongs to c4 "
            "and hf.",
        ),
        ({"name": "text"}, "data.path must name the file of data.name=text, got nothing."),
        ({"name": "tokens"}, "data.path must name the file of data.name=tokens, got nothing."),
        (
            {"path": "x.txt"},
            "data.path must be empty for data.name=stdlib, got 'x.txt'; set data.name=text to read "
            "it.",
        ),
        (
            {"vocab_size": 1000},
            "data.vocab_size must be 256 for bytes, got 1000; only data.name=tokens, c4 and hf "
            "have another.",
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
        load_corpus(token_data(tmp_path, array))


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
    assert len(load_corpus(token_data(tmp_path, np.zeros(0, int))).train) == 0
