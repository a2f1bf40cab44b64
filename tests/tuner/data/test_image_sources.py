"""The embedded digits and the scenes made of them."""

import numpy as np
import pytest
import torch
from image_files import ridge_accuracy
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from foretune.tuner.config.images import ImageData
from foretune.tuner.data.clutter import scenes
from foretune.tuner.data.digits import digits
from foretune.tuner.data.image_corpus import load_image_corpus
from foretune.tuner.data.image_stream import ImageStream

torch.set_num_threads(1)


def test_digits_are_pixel_for_pixel_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    corpus, theirs = load_image_corpus(ImageData()), load_digits()
    images = np.concatenate([corpus.train_images, corpus.validation_images])[:, 0]
    labels = np.concatenate([corpus.train_labels, corpus.validation_labels])
    assert np.array_equal(images, theirs.images)
    assert np.array_equal(labels, theirs.target)


def test_no_digit_is_in_both_splits():
    (train, _), (validation, _) = digits()
    assert (len(train), len(validation)) == (1297, 500)
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in validation}


def test_scenes_of_a_split_are_made_of_that_split_s_digits_alone():
    data = ImageData(name="cluttered", train_images=40, validation_images=30)
    corpus = load_image_corpus(data)
    for split, count, images in (
        (0, 40, corpus.train_images),
        (1, 30, corpus.validation_images),
    ):
        alone, _ = scenes(count, digits()[split], distractors=3, data_seed=0, split=split)
        assert np.array_equal(images[:, 0], alone)


def squares(first: int) -> tuple[np.ndarray, np.ndarray]:
    """A `digit` of class 0 without ink and one of class 1 that is a full square."""
    images = np.zeros((2, 8, 8), np.uint8)
    images[1] = 16
    return images, np.array([first, 1 - first])


def lit_square(images: np.ndarray, side: int) -> np.ndarray:
    """Whether an image has a square of ink (noise stays below 64) of side x side pixels."""
    windows = sliding_window_view(images > 120, (side, side), axis=(1, 2))
    return windows.all(axis=(3, 4)).any(axis=(1, 2))


@pytest.mark.parametrize("first", [0, 1])
def test_the_label_is_the_class_of_the_largest_digit(first):
    images, labels = scenes(500, squares(first), distractors=0, data_seed=0, split=0)
    large = lit_square(images, 13)
    assert 200 < large.sum() < 300
    assert np.array_equal(large, labels == 1 - first)


def test_the_largest_digit_is_whole_within_the_canvas():
    digit = np.full((1, 8, 8), 16, np.uint8), np.array([0])
    images, _ = scenes(300, digit, distractors=0, data_seed=0, split=0)
    assert lit_square(images, 13).all()


def test_scene_i_does_not_depend_on_how_many_are_made():
    few, few_labels = scenes(30, digits()[0], distractors=3, data_seed=5, split=0)
    more, more_labels = scenes(900, digits()[0], distractors=3, data_seed=5, split=0)
    assert np.array_equal(few, more[:30])
    assert np.array_equal(few_labels, more_labels[:30])


def test_scenes_differ_by_seed_by_split_and_from_each_other():
    made = [
        scenes(600, digits()[0], distractors=3, data_seed=seed, split=split)[0]
        for seed, split in ((0, 0), (1, 0), (0, 1))
    ]
    assert len({x.tobytes() for x in np.concatenate(made)}) == 1800


@pytest.mark.parametrize("name", ["digits", "cluttered", "glyphs"])
def test_classes_are_about_equally_frequent_in_both_splits(name):
    few = {} if name == "digits" else {"train_images": 3000, "validation_images": 1000}
    data = ImageData(name=name, **few)
    corpus = load_image_corpus(data)
    for labels in (corpus.train_labels, corpus.validation_labels):
        counts = np.bincount(labels, minlength=data.classes)
        expected = len(labels) / data.classes
        assert np.abs(counts - expected).max() < 5 * expected**0.5, counts


def test_a_linear_model_reads_digits_and_no_scenes():
    assert 0.85 < ridge_accuracy(ImageData()) < 0.97
    assert ridge_accuracy(ImageData(name="cluttered", train_images=4000)) < 0.2


@pytest.mark.slow
def test_a_small_cnn_learns_to_read_scenes():
    data = ImageData(name="cluttered", distractors=0, train_images=8000, validation_images=500)
    stream = ImageStream(data, batch_size=32)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, 2, padding=1), nn.GroupNorm(4, 16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=400, pct_start=0.1)
    for step in range(400):
        images, labels = stream.batch(0, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    images, labels = stream.validation
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float().mean()
    assert 0.4 < float(right) < 0.9
