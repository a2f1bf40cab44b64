"""Token, text and document files of a test's own, and tokenizers: small, in their true formats."""

import gzip
import json
from pathlib import Path

import numpy as np
import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from foretune.tuner.config.tokens import Data


def write_tokens(path: Path, tokens: np.ndarray) -> Path:
    """In the true format of the suffix: numpy's own, or bare little-endian uint16."""
    if path.suffix == ".npy":
        np.save(path, tokens)
    else:
        path.write_bytes(tokens.astype("<u2").tobytes())
    return path


def token_data(folder: Path, tokens: np.ndarray) -> Data:
    return Data(name="tokens", path=str(write_tokens(folder / "t.npy", tokens)))


def text_data(folder: Path, content: bytes, name: str = "a.txt") -> Data:
    (folder / name).write_bytes(content)
    return Data(name="text", path=str(folder / name), sequence_length=16)


def write_shard(path: Path, texts: list[str]) -> None:
    """A shard as C4's: lines of JSON with text, timestamp and address, packed by gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"text": t, "timestamp": "2019-04-25T12:57:54Z", "url": f"https://example.org/{i}"}
        for i, t in enumerate(texts)
    ]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_c4(folder: Path, texts: list[str]) -> Path:
    """A part of C4 as its repository has it: two training shards, and one to validate on."""
    third = len(texts) // 3
    write_shard(folder / "en" / "c4-train.00000-of-00002.json.gz", texts[:third])
    write_shard(folder / "en" / "c4-train.00001-of-00002.json.gz", texts[third : 2 * third])
    write_shard(folder / "en" / "c4-validation.00000-of-00001.json.gz", texts[2 * third :])
    return folder


def write_tokenizer(path: Path, texts: list[str], *, end: str = "</s>") -> Path:
    """A `tokenizer.json` of 300 byte pairs, with padding and end of text as T5's begins."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", end, "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return path


def write_pieces(path: Path, texts: list[str]) -> Path:
    """A sentencepiece model of 200 pieces, padding 0, end of text 1 and unknown 2 as T5's."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(path.with_suffix("")), vocab_size=200,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=False, minloglevel=2,
    )  # fmt: skip
    return path


def documents_data(folder: Path, tokenizer: Path, **changes) -> Data:
    fields = {"name": "c4", "path": str(folder), "tokenizer": str(tokenizer), "tokens": 2000,
        "vocab_size": 300, "sequence_length": 16, "validation_sequences": 8}  # fmt: skip
    return Data(**{**fields, **changes})
