"""Data sets and tokenizers that aren't there, or don't fit, are one sentence on what to do."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from token_files import documents_data, write_c4, write_shard, write_tokenizer

from foretune.tuner.data.documents import library
from foretune.tuner.data.tokens import load_corpus

ROOT = Path(__file__).parents[3]
TEXTS = [f"document {number} of no great length" for number in range(60)]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a data set and a tokenizer."""
    folder = tmp_path_factory.mktemp("there")
    write_tokenizer(folder / "tokenizer.json", TEXTS)
    return write_c4(folder, TEXTS)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_library_that_is_not_installed_says_how_to_get_it():
    with pytest.raises(ValueError, match=r"need no_such_library, got none; run pip install .*hf"):
        library("no_such_library")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"path": "/no/such/folder"}, "data.path must be a folder that exists .* hf download"),
        ({"tokenizer": "no.json"}, r"data.tokenizer must be .*, got 'no.json' \(no such file\)"),
        ({"tokenizer": "no.model"}, r"data.tokenizer must be .*, got 'no.model' \(no such file\)"),
        ({"column": "body"}, "data.column must name a column of texts, got 'body'.* are text, "),
        ({"tokens": 10**6}, r"data.tokens must be at most what .* has to train on, \d+, got 10000"),
        ({"vocab_size": 299}, "data.vocab_size must cover the tokenizer's 300 tokens, got 299"),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_one_sentence(there, cache, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        load_corpus(replace(documents_data(there, there / "tokenizer.json"), **changes))
    assert str(refused.value).count("\n") == 0
    assert not [path for path in cache.rglob("*") if path.is_dir()]


def test_tokenizers_and_data_sets_of_another_kind_are_one_sentence(there, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"data.tokenizer must be a tokenizer.json, .*other.json"):
        load_corpus(documents_data(there, tmp_path / "other.json"))
    path = write_tokenizer(tmp_path / "endless.json", TEXTS, end="<stop>")
    with pytest.raises(ValueError, match=r"must have a token for the end of a text, one of </s>"):
        load_corpus(documents_data(there, path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"data.path must be a data set that can be read, got"):
        load_corpus(documents_data(tmp_path / "empty", there / "tokenizer.json"))
    write_shard(tmp_path / "odd" / "test-00000.json.gz", TEXTS)
    with pytest.raises(ValueError, match=r"must hold a split named train, got test in"):
        load_corpus(documents_data(tmp_path / "odd", there / "tokenizer.json"))


@pytest.mark.slow
def test_a_name_on_the_hub_that_cannot_be_reached_is_one_sentence(there, cache):
    script = (
        "from foretune.tuner.data.tokens import Data, load_corpus\n"
        f"load_corpus(Data(name='c4', tokenizer={str(there / 'tokenizer.json')!r}, tokens=100,"
        " vocab_size=300))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "hub")},
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ValueError: data.path must be a data set that can be read, got allenai/"
    )
    assert last.endswith("for data.path=DIR.")
