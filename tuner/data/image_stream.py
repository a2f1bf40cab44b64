"""Image streams: batch t is a function of (seed, t), as in the token stream.

Shapes: N images, B images of a batch, V validation images, C channels, H x W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.augment import augment
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.shuffle import shuffled


class ImageStream:
    """Batches and validation images of one `ImageData`."""

    def __init__(self, data: ImageData, *, batch_size: int):
        self.corpus = load_image_corpus(data)
        self.data, self.batch_size = data, batch_size
        count = len(self.corpus.train_labels)
        if batch_size > count:
            raise ValueError(
                f"batch_size must be at most the number of training images, got {batch_size} and "
                f"{count} of data.name={data.name}; lower batch_size."
            )
        per_channel = (-1, 1, 1)
        mean = np.array(data.source.mean).reshape(per_channel)
        std = np.array(data.source.std).reshape(per_channel)
        self._scale_C11 = (1 / (data.source.white * std)).astype(np.float32)
        self._offset_C11 = (mean / std).astype(np.float32)
        labels_V = torch.from_numpy(self.corpus.validation_labels.copy())
        self.validation = self._normalised(self.corpus.validation_images), labels_V

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Returns images float32 (B, C, H, W) and labels int64 (B,) of update `step`.

        Batches go through the training images in epochs, each in a random order of its own; with
        data.augment, pixels move as (seed, step) says.
        """
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        chosen = shuffled(positions, len(self.corpus.train_labels), seed=seed)
        images_BCHW = self.corpus.train_images[chosen]
        if self.data.augment:
            rng = np.random.Generator(np.random.Philox(key=[seed, step]))
            source = self.data.source
            images_BCHW = augment(images_BCHW, rng, shift=source.shift, flip=source.flip)
        return self._normalised(images_BCHW), torch.from_numpy(self.corpus.train_labels[chosen])

    def _normalised(self, images_NCHW: np.ndarray) -> Tensor:
        """Returns float32 images with the source's mean at 0 and its deviation at 1."""
        pixels_NCHW = np.multiply(images_NCHW, self._scale_C11, order="C")
        pixels_NCHW -= self._offset_C11
        return torch.from_numpy(pixels_NCHW)
