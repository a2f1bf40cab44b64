"""MNIST, FashionMNIST, CIFAR-10 and CIFAR-100 by torchvision's own readers.

CIFAR's files are pickles: torchvision opens them only where their MD5 is the published one.
Shapes: N images, C channels, H x W pixels.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from foretune.tuner.data.digits import Split

CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
"""torchvision's class by data.name."""
BROKEN = (RuntimeError, ValueError, AssertionError, LookupError, OSError, EOFError)
"""What torchvision's readers raise for files that are missing, cut short or of something else."""
LOCK_FILE = ".foretune-download.lock"


def torchvision_splits(name: str, path: str, folder: str) -> tuple[Split, Split]:
    """Returns the training files and the official test files: images uint8 NCHW, labels int64 N.

    folder is where, under path, the files of `name` are. Raises ValueError where they are absent
    or damaged.
    """
    root = Path(path).expanduser()
    if not (root / folder).is_dir():
        raise ValueError(
            f"data.path must hold {name} in {folder}, got {root} without it; set "
            f"data.download=True to fetch it, or copy the folder there."
        )
    datasets = _torchvision_datasets(name)
    try:
        dataset = getattr(datasets, CLASSES[name])
        return _split(dataset(root, train=True)), _split(dataset(root, train=False))
    except BROKEN as error:
        raise ValueError(
            f"data.path must hold all files of {name} as published, got missing or damaged ones in "
            f"{root / folder} ({_first_line(error)}); remove that folder and set "
            f"data.download=True."
        ) from None


@lru_cache(maxsize=8)
def fetch(name: str, path: str) -> None:
    """Downloads a data set into path unless it is there, one process at a time.

    Raises ValueError where that fails.
    """
    from filelock import FileLock  # Only a download needs it: training works without.

    root = Path(path).expanduser()
    datasets = _torchvision_datasets(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / LOCK_FILE):
            getattr(datasets, CLASSES[name])(root, download=True)
    except BROKEN as error:
        raise ValueError(
            f"data.download must be able to fetch {name} into {root}, got {_first_line(error)}; "
            f"remove what is broken there, or copy the files from a machine with network and set "
            f"data.download=False."
        ) from None


def _torchvision_datasets(name: str) -> Any:
    try:
        from torchvision import datasets  # 2 s, which other sources needn't wait for.
    except ImportError:
        raise ValueError(
            f"data.name={name} needs torchvision, got none; run pip install torchvision."
        ) from None
    return datasets


def _split(dataset: Any) -> Split:
    images, labels = np.asarray(dataset.data), np.asarray(dataset.targets, np.int64)
    images_NCHW = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    assert images_NCHW.dtype == np.uint8, f"pixels of {images_NCHW.dtype}"
    assert len(images_NCHW) == len(labels), f"{len(images_NCHW)} images and {len(labels)} labels"
    return np.ascontiguousarray(images_NCHW), labels


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
