"""Token and text files of a test's own."""

from pathlib import Path

import numpy as np

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
