"""Documents become token files once: packed, split, the same for all, and nothing half done."""

import json
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
import torch
from short_runs import digest, finish, follow, small, without_time
from token_files import documents_data, write_c4, write_pieces, write_shard, write_tokenizer

from foretune.tuner.data.token_cache import SHARE, cache_folder, cached_corpus
from foretune.tuner.data.tokens import TokenStream, load_corpus
from foretune.tuner.training.train import Training

torch.set_num_threads(1)
CUT = 100
"""Documents to train on: two thirds, before those to validate on."""


@pytest.fixture(scope="module")
def texts():
    """Real texts: the paragraphs of Python's `os` module."""
    return [t for t in Path(os.__file__).read_text().split("\n\n") if t.strip()][: 3 * CUT // 2]


@pytest.fixture(scope="module")
def c4(tmp_path_factory, texts):
    return write_c4(tmp_path_factory.mktemp("c4"), texts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, texts):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json", texts)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FORETUNE_CACHE", str(tmp_path / "cache"))
    load_corpus.cache_clear()
    return tmp_path / "cache"


def documents(tokens, tokenizer, end=1):
    """The texts between end-of-text tokens, the last one cut where the tokens end."""
    ends = np.flatnonzero(tokens == end)
    parts = np.split(tokens, ends + 1)
    return [tokenizer.decode(p[p != end].tolist()) for p in parts if len(p)]


def test_documents_lie_end_to_end_with_one_token_between_and_none_of_padding(c4, tokenizer, texts):
    corpus = load_corpus(documents_data(c4, tokenizer))
    assert isinstance(corpus.train, np.memmap)
    assert corpus.train.dtype == np.uint16
    assert len(corpus.train) == 2000
    assert len(corpus.validation) == 2000 // SHARE
    assert 0 not in corpus.train
    read = tokenizers.Tokenizer.from_file(str(tokenizer))
    for tokens, originals in ((corpus.train, texts[:CUT]), (corpus.validation, texts[CUT:])):
        *whole, last = documents(tokens, read)
        assert whole == originals[: len(whole)]
        assert originals[len(whole)].startswith(last)
    assert len(documents(corpus.train, read)) > 10


def test_what_is_known_of_the_tokens_is_on_record(c4, tokenizer, cache):
    data = documents_data(c4, tokenizer)
    corpus = load_corpus(data)
    facts = json.loads((cache_folder(data) / "facts.json").read_text())
    assert cache_folder(data).parent == cache
    assert (facts["tokens"], facts["validation_tokens"]) == (2000, 100)
    assert (facts["dataset"], facts["config"], facts["column"]) == (str(c4), "en", "text")
    assert (facts["vocabulary"], facts["end_of_text"], facts["files"]) == (300, 1, 3)
    assert (corpus.sha256, corpus.reference_loss) == (facts["sha256"], facts["reference_loss"])
    counts = Counter(corpus.train.tolist())
    size = int(max(corpus.train.max(), corpus.validation.max())) + 1
    nats = [-math.log((counts[int(t)] + 1) / (2000 + size)) for t in corpus.validation]
    assert corpus.reference_loss == pytest.approx(sum(nats) / len(nats), rel=1e-9)
    assert 2 < corpus.reference_loss < math.log(300)


def test_tokens_are_made_once_and_made_again_where_anything_is_another(c4, tokenizer, cache, texts):
    data = documents_data(c4, tokenizer)
    first = load_corpus(data)
    made = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    load_corpus.cache_clear()
    assert load_corpus(data).sha256 == first.sha256
    # Sequence length and validation are cut from the same tokens.
    load_corpus(replace(data, sequence_length=8, validation_sequences=2))
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()} == made
    others = [
        replace(data, tokens=1999),
        replace(data, column="url", tokens=1500),
        replace(data, tokenizer=str(write_tokenizer(cache / "other.json", texts[:9], end="<eos>"))),
    ]
    shas = {load_corpus(other).sha256 for other in others}
    assert len(shas | {first.sha256}) == 4


def test_a_moved_folder_is_the_same_data_and_a_changed_one_is_not(c4, tokenizer, tmp_path, texts):
    data = documents_data(c4, tokenizer)
    moved = tmp_path / "elsewhere"
    (moved / "en").mkdir(parents=True)
    for path in (c4 / "en").iterdir():
        (moved / "en" / path.name).write_bytes(path.read_bytes())
        os.utime(moved / "en" / path.name, ns=(0, path.stat().st_mtime_ns))
    there = replace(data, path=str(moved))
    assert cache_folder(there) == cache_folder(data)
    write_shard(moved / "en" / "c4-train.00000-of-00002.json.gz", texts[1:40])
    assert cache_folder(there) != cache_folder(data)


def test_without_a_validation_split_every_twentieth_document_is_held_out(
    tokenizer, tmp_path, texts
):
    write_shard(tmp_path / "plain" / "all-train.json.gz", texts)
    data = documents_data(tmp_path / "plain", tokenizer, name="hf", tokens=4000)
    corpus = load_corpus(data)
    read = tokenizers.Tokenizer.from_file(str(tokenizer))
    *held_out, _ = documents(corpus.validation, read)
    assert held_out == texts[SHARE - 1 :: SHARE][: len(held_out)]
    assert held_out
    *whole, _ = documents(corpus.train, read)
    kept = [t for i, t in enumerate(texts) if i % SHARE != SHARE - 1]
    assert whole == kept[: len(whole)]


def test_a_sentencepiece_model_is_a_tokenizer_too(c4, tmp_path, texts):
    path = write_pieces(tmp_path / "spiece.model", texts)
    corpus = load_corpus(documents_data(c4, path, vocab_size=200))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    first = corpus.train[: int(np.flatnonzero(corpus.train == 1)[0])]
    assert first.tolist() == pieces.encode(texts[0])


def test_batches_are_a_function_of_seed_and_step_and_a_run_resumes_to_the_bit(
    c4, tokenizer, tmp_path
):
    data = documents_data(c4, tokenizer)
    ahead, behind = (TokenStream(data, batch_size=4) for _ in range(2))
    assert torch.equal(ahead.batch(3, 7)[0], [behind.batch(3, t)[0] for t in range(8)][7])
    run = small(tmp_path, {"data": data, "model.vocab_size": 300})
    outcome, rows, whole = follow(run)
    assert outcome.outcome == "finished"
    assert outcome.data_sha256 == load_corpus(data).sha256
    half = Training(run, lambda step, row: None, device="cpu")
    half.advance()
    half.save(tmp_path / "checkpoint")
    load_corpus.cache_clear()  # As in a new process, which finds the tokens made.
    again = []
    resumed = Training(
        run, lambda s, row: again.append((s, row)), device="cpu", restore=tmp_path / "checkpoint"
    )
    finish(resumed)
    assert digest(resumed) == digest(whole)
    assert without_time(again) == without_time(rows[-len(again) :])


def test_what_was_cut_off_or_damaged_is_made_again_or_named(c4, tokenizer, cache):
    data = documents_data(c4, tokenizer)
    folder = cache_folder(data)
    # What a killed process leaves, and a folder that never had its facts.
    for leftover in (folder.with_name(f".{folder.name}.partial"), folder):
        leftover.mkdir(parents=True)
        (leftover / "train.bin").write_bytes(b"half")
    assert len(load_corpus(data).train) == 2000
    assert [p.name for p in cache.iterdir() if p.is_dir()] == [folder.name]
    (folder / "train.bin").write_bytes(b"short")
    load_corpus.cache_clear()
    with pytest.raises(
        ValueError, match=r"token files that were written there.*remove that folder"
    ):
        load_corpus(data)


def test_who_asks_at_once_waits_for_the_one_that_makes_them(c4, tokenizer, cache):
    data = documents_data(c4, tokenizer)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(cached_corpus, data) for _ in range(4)]
    assert len({corpus.result().sha256 for corpus in found}) == 1
    assert [p.name for p in cache.iterdir() if p.is_dir()] == [cache_folder(data).name]
