"""The images of an `ImageData`: read or made once per process, checked, hashed.

Shapes: N images, V validation images, C channels, H x W pixels.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.clutter import scenes
from foretune.tuner.data.digits import Split, digits
from foretune.tuner.data.glyphs import glyphs
from foretune.tuner.data.shuffle import shuffled
from foretune.tuner.data.torchvision_sets import fetch, torchvision_splits


@dataclass(frozen=True, slots=True)
class ImageCorpus:
    """Pixels and labels of both splits, with what is known about them; the arrays are read-only."""

    train_images: np.ndarray
    """uint8 NCHW."""
    train_labels: np.ndarray
    """int64 N."""
    validation_images: np.ndarray
    """uint8 VCHW."""
    validation_labels: np.ndarray
    """int64 V."""
    sha256: str
    """Hash of all pixels, labels and the split: equal hashes, equal images."""
    reference_loss: float
    """Cross-entropy of the training classes' frequencies on the validation split, in nats."""


def load_image_corpus(data: ImageData) -> ImageCorpus:
    """Returns the images of an `ImageData`.

    Raises ValueError where they are absent, damaged or fewer than asked for.
    """
    if data.download:
        fetch(data.name, data.path)
    return _load(replace(data, augment=False, download=False))


@lru_cache(maxsize=4)
def _load(data: ImageData) -> ImageCorpus:
    train, validation = _generated(data) if data.source.train_images else _fixed(data)
    arrays = (*_sized(train, data), *_sized(validation, data))
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.data)
        array.setflags(write=False)
    reference = _prior_cross_entropy(arrays[1], arrays[3], data.classes)
    return ImageCorpus(*arrays, sha256=digest.hexdigest(), reference_loss=reference)


def _generated(data: ImageData) -> tuple[Split, Split]:
    train = data.train_images or data.source.train_images
    validation = data.validation_images or data.source.validation_images
    seed = data.data_seed
    if data.name == "glyphs":
        return glyphs(train, data_seed=seed, split=0), glyphs(validation, data_seed=seed, split=1)
    seen, held_out = digits()
    pieces = data.distractors
    return (
        scenes(train, seen, distractors=pieces, data_seed=seed, split=0),
        scenes(validation, held_out, distractors=pieces, data_seed=seed, split=1),
    )


def _fixed(data: ImageData) -> tuple[Split, Split]:
    folder = data.source.folder
    both = torchvision_splits(data.name, data.path, folder) if folder else digits()
    for images, labels in both:
        _check_content(images, labels, data)
    train, validation = both
    return (
        _some(train, data.train_images, "data.train_images"),
        _some(validation, data.validation_images, "data.validation_images"),
    )


def _check_content(images: np.ndarray, labels: np.ndarray, data: ImageData) -> None:
    """MNIST's files carry no checksum: another data set's in their place must not pass."""
    own = data.source.sides[0]
    if images.shape[-2:] != (own, own) or not len(labels):
        raise ValueError(
            f"data.path must hold {own}x{own} images for data.name={data.name}, got "
            f"{len(labels)} of {images.shape[-2]}x{images.shape[-1]} in {data.path}."
        )
    if labels.min() < 0 or labels.max() >= data.classes:
        raise ValueError(
            f"data.path must hold classes 0 to {data.classes - 1} for data.name={data.name}, got "
            f"{labels.min()} to {labels.max()} in {data.path}."
        )


def _some(split: Split, count: int, name: str) -> Split:
    """Returns `count` images (0: all), drawn once and for all; fewer are always among more.

    Not evenly spaced ones: the digits file repeats its classes every ten images.
    """
    images, labels = split
    if count > len(labels):
        raise ValueError(
            f"{name} must be at most what the source has, got {count} and {len(labels)}; "
            f"0 takes all."
        )
    if not count:
        return split
    chosen = np.sort(shuffled(np.arange(count), len(labels), seed=0))
    return images[chosen], labels[chosen]


def _sized(split: Split, data: ImageData) -> Split:
    """Returns own copies, images as NCHW with a black rim up to the side asked for."""
    images, labels = split
    if images.ndim == 3:
        images = images[:, None]
    room = data.side - images.shape[-1]
    rim = (room // 2, room - room // 2)
    return np.pad(images, ((0, 0), (0, 0), rim, rim)), labels.copy()


def _prior_cross_entropy(train: np.ndarray, validation: np.ndarray, classes: int) -> float:
    counts = np.bincount(train, minlength=classes) + 1.0  # A class never drawn isn't impossible.
    seen = np.bincount(validation, minlength=classes)
    return float(-(seen * np.log(counts / counts.sum())).sum() / seen.sum())
