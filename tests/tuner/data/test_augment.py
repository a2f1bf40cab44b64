"""Augmentation: every shift as likely, black comes in, a mirror image by a coin's toss."""

import numpy as np
import pytest

from foretune.tuner.data.augment import augment


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def dots(count: int, side: int = 9) -> np.ndarray:
    """One lit pixel in the middle of each image, of another colour by channel."""
    images = np.zeros((count, 3, side, side), np.uint8)
    images[:, :, side // 2, side // 2] = [10, 20, 30]
    return images


def test_shifts_reach_every_place_up_to_the_limit_about_equally_often():
    moved = augment(dots(5000), rng(), shift=2, flip=False)
    _, rows, columns = np.nonzero(moved[:, 0])
    counts = np.bincount((rows - 2) * 5 + columns - 2, minlength=25)
    assert counts.sum() == 5000
    assert counts.min() > 140  # 200 expected, 4.3 deviations
    assert counts.max() < 260


def test_channels_move_together():
    moved = augment(dots(200), rng(), shift=4, flip=True)
    assert (moved.max(axis=(2, 3)) == [10, 20, 30]).all()
    assert ((moved[:, 0] > 0) == (moved[:, 2] > 0)).all()


def test_black_comes_in_where_an_image_moves_away():
    moved = augment(np.full((300, 1, 6, 6), 255, np.uint8), rng(), shift=2, flip=False)
    lit = (moved > 0).sum(axis=(1, 2, 3))
    assert set(lit.tolist()) == {h * w for h in (4, 5, 6) for w in (4, 5, 6)}


def test_about_half_are_mirrored_and_only_where_that_is_allowed():
    images = np.zeros((4000, 1, 8, 8), np.uint8)
    images[:, :, :, 0] = 1
    mirrored = augment(images, rng(), shift=0, flip=True)[:, 0, 0, -1].sum()
    assert mirrored == pytest.approx(2000, abs=150)
    assert np.array_equal(augment(images, rng(), shift=0, flip=False), images)


def test_the_same_generator_gives_the_same_pixels_and_leaves_its_input_alone():
    images = dots(50)
    first, second = (augment(images, rng(3), shift=3, flip=True) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, augment(images, rng(4), shift=3, flip=True))
    assert np.array_equal(images, dots(50))
