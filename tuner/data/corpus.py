"""Token arrays of both splits of a text, with what is known about them."""

import hashlib
from dataclasses import dataclass

import numpy as np

CHUNK_TOKENS = 1 << 24
"""Tokens that are counted at a time: counting makes 8 bytes of each."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token arrays of both splits, with what is known about them."""

    train: np.ndarray
    """Tokens, shape (n_train,)."""
    validation: np.ndarray
    """Tokens, shape (n_validation,)."""
    sha256: str
    """Hash of all tokens and of the split: equal hashes, equal batches."""
    reference_loss: float
    """Unigram entropy: cross-entropy of the training split's token frequencies on the validation
    split, in nats a token."""

    @classmethod
    def of(cls, train: np.ndarray, validation: np.ndarray) -> "Corpus":
        """Returns the corpus of two token arrays, which are read once and may be memory-mapped."""
        digest = hashlib.sha256(np.ascontiguousarray(train).data)
        digest.update(b"validation")
        digest.update(np.ascontiguousarray(validation).data)
        return cls(train, validation, digest.hexdigest(), _unigram_entropy(train, validation))


def _unigram_entropy(train: np.ndarray, validation: np.ndarray) -> float:
    if not len(train) or not len(validation):
        return float("nan")
    size = int(max(train.max(), validation.max())) + 1
    counts = _counts(train, size) + 1.0
    seen = _counts(validation, size)
    return float(-(seen * np.log(counts / counts.sum())).sum() / seen.sum())


def _counts(tokens: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` tokens is there, shape (size,)."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        counts += np.bincount(tokens[start : start + CHUNK_TOKENS], minlength=size)
    return counts
