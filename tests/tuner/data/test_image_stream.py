"""Image streams: what a batch is, and that it is a function of seed and step alone."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.image_stream import ImageStream

torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]
SMALL = {"train_images": 700, "validation_images": 300}
EMBEDDED = [
    ImageData(augment=True),
    ImageData(name="cluttered", augment=True, **SMALL),
    ImageData(name="glyphs", augment=True, **SMALL),
]
each_source = pytest.mark.parametrize("data", EMBEDDED, ids=lambda data: data.name)


def pixels_and_labels(batch: tuple[torch.Tensor, torch.Tensor]) -> bytes:
    return batch[0].numpy().tobytes() + batch[1].numpy().tobytes()


@each_source
def test_a_batch_has_the_shape_and_the_types_promised(data):
    images, labels = ImageStream(data, batch_size=6).batch(0, 0)
    assert images.shape == (6, data.channels, data.side, data.side)
    assert labels.shape == (6,)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.is_contiguous()
    assert bool(torch.isfinite(images).all())
    assert 0 <= int(labels.min()) <= int(labels.max()) < data.classes


@each_source
def test_batch_t_is_a_function_of_seed_and_t_alone(data):
    stream = ImageStream(data, batch_size=16)
    forward = {t: pixels_and_labels(stream.batch(3, t)) for t in range(6)}
    for t in reversed(range(6)):
        torch.rand(1)
        np.random.default_rng().random()
        assert pixels_and_labels(stream.batch(3, t)) == forward[t]
        assert pixels_and_labels(ImageStream(data, batch_size=16).batch(3, t)) == forward[t]
    assert len(set(forward.values())) == 6


@each_source
def test_seeds_and_steps_draw_different_batches(data):
    stream = ImageStream(data, batch_size=16)
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2**62, 0), (2**62 + 1, 0), (0, 10**9)]
    assert len({pixels_and_labels(stream.batch(*pair)) for pair in pairs}) == len(pairs)


@pytest.mark.slow
def test_another_process_makes_the_same_images_batches_and_hashes():
    script = (
        "import hashlib, json; from foretune.tuner.data.image_stream import *\n"
        f"streams = [ImageStream(data, batch_size=16) for data in {EMBEDDED!r}]\n"
        "print(json.dumps([[s.corpus.sha256, hashlib.sha256(s.batch(7, 11)[0].numpy().tobytes())"
        ".hexdigest()] for s in streams]))"
    ).replace("import *", "import *; from foretune.tuner.config.images import ImageData", 1)
    # Another seed of hashes than here, where it is by chance or by the environment.
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONHASHSEED": other, "PATH": "", "HOME": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    here = []
    for data in EMBEDDED:
        images = ImageStream(data, batch_size=16).batch(7, 11)[0].numpy().tobytes()
        here.append([load_image_corpus(data).sha256, hashlib.sha256(images).hexdigest()])
    assert json.loads(done.stdout) == here


def test_an_epoch_sees_every_training_image_once_in_an_order_of_its_own():
    stream = ImageStream(ImageData(train_images=120), batch_size=40)
    images = stream._normalised(stream.corpus.train_images)
    index = {image.numpy().tobytes(): k for k, image in enumerate(images)}
    drawn = torch.cat([stream.batch(5, t)[0] for t in range(9)])
    order = np.array([index[image.numpy().tobytes()] for image in drawn]).reshape(3, 120)
    assert (np.sort(order, axis=1) == np.arange(120)).all()
    assert len({tuple(epoch) for epoch in order}) == 3


def test_a_batch_across_the_end_of_an_epoch_takes_the_rest_from_the_next():
    small = ImageStream(ImageData(train_images=100), batch_size=10)
    large = ImageStream(ImageData(train_images=100), batch_size=70)
    labels = torch.cat([small.batch(2, t)[1] for t in range(14)])
    assert torch.equal(torch.cat([large.batch(2, t)[1] for t in range(2)]), labels)


@each_source
def test_labels_stay_with_their_images_in_batches(data):
    stream = ImageStream(replace(data, augment=False), batch_size=50)
    known = stream._normalised(stream.corpus.train_images)
    label_of = dict(
        zip((k.numpy().tobytes() for k in known), stream.corpus.train_labels, strict=True)
    )
    images, labels = stream.batch(1, 4)
    assert [label_of[image.numpy().tobytes()] for image in images] == labels.tolist()


@each_source
def test_augmentation_moves_pixels_and_keeps_labels_and_validation(data):
    plain = ImageStream(replace(data, augment=False), batch_size=64)
    moving = ImageStream(data, batch_size=64)
    before, after = plain.batch(0, 3), moving.batch(0, 3)
    assert before[0].shape == after[0].shape
    assert torch.equal(before[1], after[1])
    changed = (before[0] != after[0]).flatten(1).any(1)
    assert int(changed.sum()) > 40
    assert torch.equal(plain.validation[0], moving.validation[0])
    assert plain.corpus is moving.corpus


@each_source
def test_training_pixels_have_mean_0_and_deviation_1(data):
    images, _ = ImageStream(data, batch_size=8).validation
    train = ImageStream(data, batch_size=8)._normalised(load_image_corpus(data).train_images)
    assert float(train.mean()) == pytest.approx(0, abs=0.03)
    assert float(train.std()) == pytest.approx(1, abs=0.03)
    assert float(images.mean()) == pytest.approx(0, abs=0.06)


def test_the_hash_tells_one_pixel_one_label_and_another_split_apart():
    base = {"name": "cluttered", **SMALL}
    variants = [
        base,
        base | {"data_seed": 1},
        base | {"distractors": 4},
        base | {"train_images": 701},
        base | {"validation_images": 299},
        base | {"name": "glyphs"},
    ]
    hashes = [load_image_corpus(ImageData(**variant)).sha256 for variant in variants]
    assert len(set(hashes)) == len(hashes)
    assert load_image_corpus(ImageData(**base, augment=True)).sha256 == hashes[0]


def test_the_reference_loss_is_that_of_knowing_the_class_frequencies_alone():
    corpus = load_image_corpus(ImageData())
    counts = np.bincount(corpus.train_labels) + 1
    by_hand = -np.log((counts / counts.sum())[corpus.validation_labels]).mean()
    assert corpus.reference_loss == pytest.approx(by_hand, rel=1e-12)
    assert corpus.reference_loss == pytest.approx(np.log(10), abs=0.01)
    glyphs = load_image_corpus(ImageData(name="glyphs"))
    assert glyphs.reference_loss == pytest.approx(np.log(100), abs=0.01)


def test_the_images_in_memory_can_not_be_changed_by_accident():
    corpus = load_image_corpus(ImageData())
    with pytest.raises(ValueError, match="read-only"):
        corpus.train_images[0, 0, 0, 0] = 1
    images, labels = ImageStream(ImageData(), batch_size=4).validation
    sha = corpus.validation_labels.copy()
    images.zero_()
    labels.zero_()
    assert np.array_equal(load_image_corpus(ImageData()).validation_labels, sha)
