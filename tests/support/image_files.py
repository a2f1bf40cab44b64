"""Image files of a test's own, in the true formats of MNIST and CIFAR; reading images linearly."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.image_corpus import load_image_corpus

Split = tuple[np.ndarray, np.ndarray]


def random_split(count: int, shape: tuple[int, ...], classes: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, size=(count, *shape), dtype=np.uint8)
    return pixels, rng.integers(0, classes, size=count)


def idx(array: np.ndarray) -> bytes:
    """IDX: two zero bytes, 8 (unsigned byte), the number of axes, big-endian sizes, the bytes."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files(train: Split, test: Split) -> dict[str, bytes]:
    files = {}
    for name, (images, labels) in {"train": train, "t10k": test}.items():
        files[f"{name}-images-idx3-ubyte"] = idx(images)
        files[f"{name}-labels-idx1-ubyte"] = idx(labels)
    return files


def write_mnist(root: Path, train: Split, test: Split, folder: str = "MNIST/raw") -> Path:
    (root / folder).mkdir(parents=True)
    for name, content in idx_files(train, test).items():
        (root / folder / name).write_bytes(content)
    return root


def write_mnist_mirror(folder: Path, train: Split, test: Split) -> list[tuple[str, str]]:
    """Gzipped as published; returns the names with their MD5s."""
    folder.mkdir()
    resources = []
    for name, content in idx_files(train, test).items():
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    return resources


def write_pickle(path: Path, content: dict[str, object]) -> list[str]:
    """As Python 2 wrote them; returns file name and MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = pickle.dumps(content, protocol=2)
    path.write_bytes(packed)
    return [path.name, hashlib.md5(packed).hexdigest()]


def rows(images_NCHW: np.ndarray) -> np.ndarray:
    """CIFAR's rows of 3,072 bytes: all red pixels, all green ones, all blue ones."""
    return images_NCHW.reshape(len(images_NCHW), -1)


def write_cifar10(root: Path, train: Split, test: Split, patch: pytest.MonkeyPatch) -> Path:
    """Five training batches and one of tests.

    torchvision opens a file only if its MD5 is the published one, which no file of a test's own
    has: the list of MD5s, and nothing else of torchvision, is replaced by that of these files.
    """
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    parts = zip(np.array_split(train[0], 5), np.array_split(train[1], 5), strict=True)
    train_list = [
        write_pickle(folder / f"data_batch_{k}", {"data": rows(x), "labels": y.tolist()})
        for k, (x, y) in enumerate(parts, start=1)
    ]
    test_list = [
        write_pickle(folder / "test_batch", {"data": rows(test[0]), "labels": test[1].tolist()})
    ]
    names = [f"class {k}" for k in range(10)]
    meta = write_pickle(folder / "batches.meta", {"label_names": names})
    patch.setattr(CIFAR10, "train_list", train_list)
    patch.setattr(CIFAR10, "test_list", test_list)
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta[1]})
    return root


def write_cifar100(root: Path, train: Split, test: Split, patch: pytest.MonkeyPatch) -> Path:
    """One file a split, with fine labels (100) beside coarse ones (20); MD5s as for CIFAR-10."""
    from torchvision.datasets import CIFAR100

    folder = root / "cifar-100-python"
    listed = {}
    for name, (images, labels) in {"train": train, "test": test}.items():
        content = {
            "data": rows(images),
            "fine_labels": labels.tolist(),
            "coarse_labels": (labels % 20).tolist(),
        }
        listed[name] = [write_pickle(folder / name, content)]
    meta = write_pickle(folder / "meta", {"fine_label_names": [f"class {k}" for k in range(100)]})
    patch.setattr(CIFAR100, "train_list", listed["train"])
    patch.setattr(CIFAR100, "test_list", listed["test"])
    patch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": meta[1]})
    return root


def ridge_accuracy(data: ImageData) -> float:
    """Share of validation images that a linear model of the pixels gets right."""
    corpus = load_image_corpus(data)

    def features(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1) / data.source.white
        return np.hstack([flat, np.ones((len(flat), 1))])

    x, one_hot = features(corpus.train_images), np.eye(data.classes)[corpus.train_labels]
    weights = np.linalg.solve(x.T @ x + len(x) * 1e-3 * np.eye(x.shape[1]), x.T @ one_hot)
    guesses = (features(corpus.validation_images) @ weights).argmax(1)
    return float((guesses == corpus.validation_labels).mean())
