"""Streamed documents as token files: tokenised once, then memory-mapped by every run.

A stream can't be entered at an arbitrary place, which a batch that is a function of (seed, t)
wants. So the first run that asks writes the tokens of so many documents, an end-of-text token after
each, without padding, to FORETUNE_CACHE (default ~/.cache/foretune): `train.bin`,
`validation.bin` and `facts.json`. Others wait for it, and later ones read.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from foretune.caches import cache_root
from foretune.tuner.data.corpus import Corpus
from foretune.tuner.data.documents import (
    Tokenizer,
    file_identity,
    folder_of,
    open_tokenizer,
    splits_of,
    texts_of,
)

if TYPE_CHECKING:
    from foretune.tuner.config.tokens import Data

FORMAT = 1
SHARE = 20
"""Validation tokens: those of `data.tokens` over this, at most MOST_VALIDATION. Without a split of
that name one document in so many is held out."""
MOST_VALIDATION = 1 << 22
DOCUMENTS = 1000
"""Documents that are tokenised at a time."""
SMALL = 1 << 16
"""Vocabularies up to this are stored as uint16, larger ones as uint32."""
HEARTBEAT_SECONDS = 10.0


def cached_corpus(data: "Data") -> Corpus:
    """Returns the corpus of a data set of documents, from its cache or after making that.

    Raises ValueError where data set, tokenizer or library isn't there, or they don't fit.
    """
    folder = cache_folder(data)
    if not (folder / "facts.json").exists():
        _make(data, folder)
    facts = json.loads((folder / "facts.json").read_text())
    _check_vocabulary(data, facts["vocabulary"])
    files = [folder / "train.bin", folder / "validation.bin"]
    sizes = [path.stat().st_size if path.exists() else -1 for path in files]
    if sizes != facts["bytes"]:
        raise ValueError(
            f"{folder} must hold the token files that were written there, got files of {sizes} "
            f"bytes instead of {facts['bytes']}; remove that folder, and they are made again."
        )
    train, validation = (_mapped(path, facts["dtype"]) for path in files)
    return Corpus(train, validation, facts["sha256"], facts["reference_loss"])


def cache_folder(data: "Data") -> Path:
    """Returns where the tokens of some data are kept; its name changes with all they depend on.

    ValueError for a local folder that isn't there.
    """
    text = json.dumps(_identity(data), sort_keys=True)
    return cache_root() / f"{data.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _identity(data: "Data") -> dict[str, Any]:
    """Everything that decides the tokens, as JSON values."""
    folder = folder_of(data.dataset, data.subset)
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
    stats = [(p.relative_to(folder).as_posix(), p.stat()) for p in files] if folder else []
    return {
        "format": FORMAT,
        "dataset": "" if folder else data.dataset,
        # A folder may move; another content has another size or time.
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "config": "" if folder else data.subset,
        "column": data.column,
        "tokenizer": file_identity(data.tokenizer),
        "tokens": data.tokens,
    }


def _check_vocabulary(data: "Data", vocabulary: int) -> None:
    if data.vocab_size < vocabulary:
        raise ValueError(
            f"data.vocab_size must cover the tokenizer's {vocabulary} tokens, got "
            f"{data.vocab_size}; set data.vocab_size and model.vocab_size to {vocabulary} or more."
        )


def _make(data: "Data", folder: Path) -> None:
    """Writes the cache, whole or not at all; one process at a time."""
    from filelock import FileLock  # Only who makes one needs it: training works without.

    tokenizer = open_tokenizer(data.tokenizer)
    _check_vocabulary(data, tokenizer.vocabulary)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (folder / "facts.json").exists():
            return
        partial = folder.with_name(f".{folder.name}.partial")
        for leftover in (partial, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        try:
            facts = _write(data, tokenizer, partial)
            (partial / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(data: "Data", tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Writes both token files; returns the content of facts.json."""
    dtype = "<u2" if tokenizer.vocabulary <= SMALL else "<u4"
    train_texts, validation_texts = _texts(data)
    wanted = max(1, min(data.tokens // SHARE, MOST_VALIDATION))
    files = [folder / "train.bin", folder / "validation.bin"]
    with files[1].open("wb") as file:
        _fill(file, _tokens(validation_texts, tokenizer, dtype), wanted)
    with files[0].open("wb") as file:
        written = _fill(file, _tokens(train_texts, tokenizer, dtype), data.tokens, say=True)
    if written < data.tokens:
        raise ValueError(
            f"data.tokens must be at most what {data.dataset} has to train on, {written}, got "
            f"{data.tokens}; lower it."
        )
    train, validation = (_mapped(path, dtype) for path in files)
    corpus, identity = Corpus.of(train, validation), _identity(data)
    return {
        **identity,
        "files": len(identity["files"]),
        "dataset": data.dataset,
        "config": data.subset,
        "tokenizer_name": data.tokenizer,
        "vocabulary": tokenizer.vocabulary,
        "end_of_text": tokenizer.end,
        "dtype": dtype,
        "validation_tokens": len(validation),
        "bytes": [path.stat().st_size for path in files],
        "sha256": corpus.sha256,
        "reference_loss": corpus.reference_loss,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _mapped(path: Path, dtype: str) -> np.ndarray:
    empty = path.stat().st_size == 0  # Which can't be mapped.
    return np.zeros(0, dtype) if empty else np.memmap(path, dtype=dtype, mode="r")


def _texts(data: "Data") -> tuple[Iterator[str], Iterator[str]]:
    """The documents to train and to validate on, each in the data set's order."""
    splits = splits_of(data.dataset, data.subset)
    train = splits["train"]
    if "validation" in splits:
        return (
            texts_of(train, data.column, data.dataset),
            texts_of(splits["validation"], data.column, data.dataset),
        )
    both = ((i % SHARE == SHARE - 1, text) for i, text in _numbered(train, data))
    again = ((i % SHARE == SHARE - 1, text) for i, text in _numbered(train, data))
    return (text for out, text in both if not out), (text for out, text in again if out)


def _numbered(split: Any, data: "Data") -> Iterator[tuple[int, str]]:
    return enumerate(texts_of(split, data.column, data.dataset))


def _tokens(texts: Iterator[str], tokenizer: Tokenizer, dtype: str) -> Iterator[np.ndarray]:
    """Gives the tokens of documents, an end-of-text token after each."""
    while batch := list(islice(texts, DOCUMENTS)):
        ids = tokenizer.encode(batch)
        yield np.fromiter(chain.from_iterable((*d, tokenizer.end) for d in ids), dtype=dtype)


def _fill(file: BinaryIO, parts: Iterator[np.ndarray], wanted: int, *, say: bool = False) -> int:
    """Writes tokens until there are as many as wanted; returns how many there are."""
    written, last = 0, time.monotonic()
    for part in parts:
        part = part[: wanted - written]
        file.write(part.tobytes())
        written += len(part)
        if written == wanted:
            break
        if say and time.monotonic() - last > HEARTBEAT_SECONDS:
            last = time.monotonic()
            print(f"tokenised {written:,} of {wanted:,}", file=sys.stderr, flush=True)
    return written
