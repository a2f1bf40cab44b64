"""Where batches come from: the stream and the corpus of any kind of data.

Batch t is a function of (seed, t), so a resumed run sees the batches that it would have seen.
"""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from foretune.tuner.config.images import ImageData
from foretune.tuner.config.run import Run
from foretune.tuner.config.tokens import Data
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.image_stream import ImageStream
from foretune.tuner.data.tokens import TokenStream, load_corpus


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


def validation_parts(
    run: Run, stream: Stream, micro_batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives inputs and targets of the validation samples, as many at a time as go through at once.

    About 2,048 tokens: large enough for speed, small enough for the cache. micro_batch_size is a
    smaller one than the run's, where memory lacks: no more than that go through.
    """
    inputs, targets = stream.validation
    at_once = max(run.micro_batch_size, min(256, 2048 // run.data.predictions))
    if micro_batch_size and micro_batch_size < run.micro_batch_size:
        at_once = micro_batch_size
    return zip(inputs.split(at_once), targets.split(at_once), strict=True)


def load_source(data: Data | ImageData) -> Source:
    """Returns what is known about some data, read once a process; ValueError where it is absent."""
    return load_image_corpus(data) if isinstance(data, ImageData) else load_corpus(data)
