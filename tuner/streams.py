"""Where batches come from: the stream and the corpus of any kind of data.

Batch t is a function of (seed, t), so a resumed run sees the batches that it would have seen.
"""

from typing import Protocol

from torch import Tensor

from tuner.data import Data, TokenStream, load_corpus
from tuner.image_corpus import load_image_corpus
from tuner.image_data import ImageData
from tuner.image_stream import ImageStream


class Source(Protocol):
    """What is known about the data of a stream."""

    @property
    def sha256(self) -> str:
        """Hash of all data and of the split: equal hashes, equal batches."""
        ...

    @property
    def reference_loss(self) -> float:
        """Validation loss of who knows frequencies only (of tokens or classes), in nats."""
        ...


class Stream(Protocol):
    """Batches for training and one fixed batch for validation."""

    validation: tuple[Tensor, Tensor]
    """Inputs and targets, held out."""

    @property
    def corpus(self) -> Source: ...

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets of update `step`."""
        ...


def open_stream(data: Data | ImageData, *, batch_size: int) -> Stream:
    """Returns the stream of some data; ValueError where it can't give a batch."""
    if isinstance(data, ImageData):
        return ImageStream(data, batch_size=batch_size)
    return TokenStream(data, batch_size=batch_size)


def load_source(data: Data | ImageData) -> Source:
    """Returns what is known about some data, read once a process; ValueError where it is absent."""
    return load_image_corpus(data) if isinstance(data, ImageData) else load_corpus(data)
