"""MNIST, FashionMNIST and CIFAR in their true formats: the very pixels come back, or a sentence."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from image_files import (
    random_split,
    write_cifar10,
    write_cifar100,
    write_mnist,
    write_mnist_mirror,
)

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.image_stream import ImageStream
from foretune.tuner.data.torchvision_sets import fetch

GREY = random_split(40, (28, 28), 10, seed=0), random_split(20, (28, 28), 10, seed=1)
COLOUR = random_split(50, (3, 32, 32), 10, seed=2), random_split(20, (3, 32, 32), 10, seed=3)
FINE = random_split(60, (3, 32, 32), 100, seed=4), random_split(30, (3, 32, 32), 100, seed=5)


def assert_holds(data: ImageData, train, test) -> None:
    corpus = load_image_corpus(data)
    shape = (-1, data.channels, data.side, data.side)
    assert np.array_equal(corpus.train_images, train[0].reshape(shape))
    assert np.array_equal(corpus.train_labels, train[1])
    assert np.array_equal(corpus.validation_images, test[0].reshape(shape))
    assert np.array_equal(corpus.validation_labels, test[1])


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_idx_files_give_back_the_very_pixels_written(tmp_path, name, folder):
    root = write_mnist(tmp_path, *GREY, folder=folder)
    assert_holds(ImageData(name=name, path=str(root)), *GREY)


def test_cifar10_batches_give_back_the_very_pixels_written(tmp_path, monkeypatch):
    root = write_cifar10(tmp_path, *COLOUR, monkeypatch)
    assert_holds(ImageData(name="cifar10", path=str(root)), *COLOUR)


def test_cifar100_gives_back_the_very_pixels_and_its_fine_labels(tmp_path, monkeypatch):
    root = write_cifar100(tmp_path, *FINE, monkeypatch)
    assert_holds(ImageData(name="cifar100", path=str(root)), *FINE)


def test_pixels_are_normalised_by_the_published_mean_and_deviation_of_each_channel(
    tmp_path, monkeypatch
):
    root = write_cifar10(tmp_path, *COLOUR, monkeypatch)
    images, labels = ImageStream(ImageData(name="cifar10", path=str(root)), batch_size=8).validation
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
    expected = (torch.from_numpy(COLOUR[1][0]).float() / 255 - mean) / std
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert labels.tolist() == COLOUR[1][1].tolist()


def test_mnist_is_padded_to_32_pixels_with_black(tmp_path):
    root = write_mnist(tmp_path, *GREY)
    images = load_image_corpus(ImageData(name="mnist", path=str(root), image_size=32)).train_images[
        :, 0
    ]
    assert np.array_equal(images[:, 2:-2, 2:-2], GREY[0][0])
    assert images.sum() == GREY[0][0].sum()


def test_fewer_images_are_a_fixed_part_of_the_file_and_never_more_than_there_are(tmp_path):
    path = str(write_mnist(tmp_path, *GREY))
    few, more = (
        {image.tobytes() for image in load_image_corpus(data).train_images}
        for data in (
            ImageData(name="mnist", path=path, train_images=10),
            ImageData(name="mnist", path=path, train_images=25),
        )
    )
    assert (len(few), len(more)) == (10, 25)
    assert few < more < {image.tobytes() for image in GREY[0][0]}
    with pytest.raises(ValueError, match=r"data.validation_images must be at most .* 21 and 20"):
        load_image_corpus(ImageData(name="mnist", path=path, validation_images=21))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_absent_data_gives_a_sentence_on_how_to_get_it(tmp_path, name):
    data = ImageData(name=name, path=str(tmp_path))
    with pytest.raises(ValueError, match=f"data.path must hold {name} in .*data.download=True"):
        ImageStream(data, batch_size=4)


def test_cifar_files_with_another_md5_are_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    # A pickle that would raise SystemExit if it were opened.
    trap = b"cbuiltins\nSystemExit\n)R."
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(trap)
    with pytest.raises(ValueError, match="must hold all files of cifar10 as published"):
        load_image_corpus(ImageData(name="cifar10", path=str(tmp_path)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: (raw / "t10k-labels-idx1-ubyte").unlink(),
        lambda raw: (raw / "train-images-idx3-ubyte").write_bytes(b""),
        lambda raw: (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0" * 40),
        lambda raw: (raw / "train-labels-idx1-ubyte").write_bytes(b"<html>not found</html>" * 9),
        lambda raw: (raw / "train-labels-idx1-ubyte").write_bytes(
            (raw / "t10k-labels-idx1-ubyte").read_bytes()
        ),
        lambda raw: (raw / "train-images-idx3-ubyte").write_bytes(
            (raw / "train-images-idx3-ubyte").read_bytes()[:-700]
        ),
    ],
    ids=["missing", "empty", "zeros", "html", "another split's", "cut short"],
)
def test_damaged_idx_files_give_a_sentence(tmp_path, damage):
    root = write_mnist(tmp_path, *GREY)
    damage(root / "MNIST/raw")
    with pytest.raises(ValueError, match=r"data.path must hold all files of mnist as published"):
        load_image_corpus(ImageData(name="mnist", path=str(root)))


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        (random_split(30, (32, 32), 10, seed=6), "28x28 images .* got 30 of 32x32"),
        (random_split(300, (28, 28), 26, seed=7), "classes 0 to 9 .* got 0 to 25"),
    ],
    ids=["another size", "other classes"],
)
def test_another_data_set_in_the_place_of_mnist_is_refused(tmp_path, split, rule):
    root = write_mnist(tmp_path, split, split)
    with pytest.raises(ValueError, match=rule):
        load_image_corpus(ImageData(name="mnist", path=str(root)))


def test_download_fetches_what_is_absent_once(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    mirror, root = tmp_path / "mirror", str(tmp_path / "new" / "root")
    monkeypatch.setattr(MNIST, "resources", write_mnist_mirror(mirror, *GREY))
    with serving(mirror) as (address, requests):
        monkeypatch.setattr(MNIST, "mirrors", [address])
        assert_holds(ImageData(name="mnist", path=root, download=True), *GREY)
        fetched = list(requests)
        fetch.cache_clear()
        fetch("mnist", root)
    assert {"/train-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"} <= set(fetched)
    assert requests == fetched


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server of a folder; yields its address and the paths that it was asked for."""
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_download_that_fails_gives_a_sentence(tmp_path, monkeypatch, free_port):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{free_port}/"])
    with pytest.raises(ValueError, match=r"data.download must be able to fetch mnist") as caught:
        load_image_corpus(ImageData(name="mnist", path=str(tmp_path), download=True))
    assert re.search(r"data.download=False\.$", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_download_does_not_pass_over_damaged_files(tmp_path):
    root = write_mnist(tmp_path, *GREY)
    (root / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data.download must .* remove what is broken there"):
        load_image_corpus(ImageData(name="mnist", path=str(root), download=True))
