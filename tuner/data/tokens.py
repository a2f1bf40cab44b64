"""Token streams: the embedded text, local text, memory-mapped token files, data sets of documents.

Batch t is a function of (seed, t), so a resumed run sees the batches that it would have seen.
Shapes: B sequences, T positions.
"""

import hashlib
import os
import sysconfig
from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from foretune.tuner.config.tokens import TOKENISED, Data
from foretune.tuner.data.corpus import Corpus

VALIDATION_SHARE = 20
"""One file (or, in a single file, one 4 KiB chunk) in this many is held out."""
CHUNK = 4096


class TokenStream:
    """Batches and validation windows of one `Data`."""

    def __init__(self, data: Data, *, batch_size: int):
        self.corpus = load_corpus(data)
        self.length, self.batch_size = data.sequence_length, batch_size
        needed = batch_size * (self.length + 1)
        if len(self.corpus.train) < needed or len(self.corpus.validation) < self.length + 1:
            raise ValueError(
                f"The text must hold a batch of {batch_size} x {self.length + 1} tokens "
                f"to train on and one window to validate on, got {len(self.corpus.train)} and "
                f"{len(self.corpus.validation)} tokens; give more text or lower "
                f"data.sequence_length."
            )
        self._windows = sliding_window_view(self.corpus.train, self.length + 1)
        held_out = sliding_window_view(self.corpus.validation, self.length + 1)
        starts = np.linspace(0, len(held_out) - 1, data.validation_sequences).astype(np.int64)
        self.validation = _shifted(held_out[starts])

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and next-token targets of update `step`, each int64 (B, T)."""
        rng = np.random.Generator(np.random.Philox(key=[seed, step]))
        starts = rng.integers(0, len(self._windows) - 1, size=self.batch_size, endpoint=True)
        return _shifted(self._windows[starts])


def _shifted(windows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Returns windows of T + 1 tokens as inputs and next-token targets, each int64 (B, T)."""
    tokens = torch.from_numpy(windows.astype(np.int64))
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


@lru_cache(maxsize=4)
def load_corpus(data: Data) -> Corpus:
    """Returns the corpus of a `Data`, read once per process.

    Raises ValueError where the path is missing, empty, of the wrong type, or holds tokens outside
    the vocabulary.
    """
    if data.name == "stdlib":
        return _standard_library()
    if data.name == "prose":
        return _split_array(np.frombuffer(_language_reference(), dtype=np.uint8))
    if data.name in TOKENISED:
        from foretune.tuner.data.token_cache import cached_corpus  # Which other data needn't load.

        return cached_corpus(data)
    path = Path(data.path)
    if not path.exists():
        raise ValueError(f"data.path must be a file or folder that exists, got {data.path!r}.")
    if data.name == "tokens":
        return _token_file(path, data.vocab_size)
    if path.is_file():
        return _split_array(np.fromfile(path, dtype=np.uint8))
    visible = (p for p in path.rglob("*") if not _hidden(p.relative_to(path)))
    files = sorted(p for p in visible if p.is_file())
    if not files:
        raise ValueError(f"data.path must hold at least one file, got the empty folder {path}.")
    if len(files) == 1:
        return _split_array(np.fromfile(files[0], dtype=np.uint8))
    return _split_files([(p.relative_to(path).as_posix(), p) for p in files])


def _hidden(path: Path) -> bool:
    """Whether a name on the path starts with a dot: `.git/config` is as hidden as `.notes`."""
    return any(part.startswith(".") for part in path.parts)


def standard_library_files() -> list[tuple[str, Path]]:
    """Returns the files of the embedded text by their names, in order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    found: list[Path] = []
    for folder, inside, names in os.walk(root):
        # Never walked into: site-packages may hold more files than all the rest.
        inside[:] = [name for name in inside if name not in left_out]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted((path.relative_to(root).as_posix(), path) for path in found)


@lru_cache(maxsize=1)
def _standard_library() -> Corpus:
    """The same text whatever else a `Data` says, so that it is read once."""
    return _split_files(standard_library_files())


def _language_reference() -> bytes:
    return "\n".join(topics[name] for name in sorted(topics)).encode()


def _split_files(named: list[tuple[str, Path]]) -> Corpus:
    """Splits by file: every twentieth in the order of the hash of its name is held out."""
    shuffled = sorted(named, key=lambda pair: hashlib.sha256(pair[0].encode()).hexdigest())
    held_out = {name for name, _ in shuffled[::VALIDATION_SHARE]}
    parts = {name: np.fromfile(path, dtype=np.uint8) for name, path in named}
    train = np.concatenate([a for name, a in parts.items() if name not in held_out])
    validation = np.concatenate([a for name, a in parts.items() if name in held_out])
    return Corpus.of(train, validation)


def _split_array(tokens: np.ndarray) -> Corpus:
    """Splits one array by chunk: every twentieth chunk of 4 KiB (or of a twentieth) is held out."""
    chunk = max(1, min(CHUNK, len(tokens) // VALIDATION_SHARE))
    held_out = np.arange(len(tokens)) // chunk % VALIDATION_SHARE == VALIDATION_SHARE - 1
    return Corpus.of(tokens[~held_out], tokens[held_out])


def _token_file(path: Path, vocab_size: int) -> Corpus:
    """Memory-maps a token file; its last twentieth is held out, so that both stay mapped."""
    if path.suffix not in (".npy", ".bin") or not path.is_file():
        raise ValueError(f"data.path must end in .npy or .bin (uint16) for tokens, got {path}.")
    try:
        if path.suffix == ".npy":
            tokens = np.load(path, mmap_mode="r")
        else:
            tokens = np.memmap(path, dtype=np.uint16, mode="r")
    except (ValueError, EOFError):
        raise ValueError(
            f"data.path must hold whole tokens in the format of its suffix, got a damaged or empty "
            f"{path} of {path.stat().st_size} bytes; write it with numpy.save or as bare uint16."
        ) from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
        raise ValueError(
            f"data.path must hold one axis of whole numbers, got {tokens.dtype} of "
            f"{tokens.ndim} axes in {path}."
        )
    # Before anything counts them: a token of 4e9 would ask for 30 GiB.
    low, high = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"data.vocab_size must cover every token, got {vocab_size} and tokens from {low} to "
            f"{high} in {path}; set data.vocab_size and model.vocab_size to {high + 1} or more."
        )
    cut = len(tokens) - len(tokens) // VALIDATION_SHARE
    return Corpus.of(tokens[:cut], tokens[cut:])
