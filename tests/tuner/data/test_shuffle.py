"""Epochs in random order: a bijection of any size, and no order that differs from chance."""

import itertools

import numpy as np
import pytest
from scipy import stats

from foretune.tuner.data.shuffle import shuffled


@pytest.mark.parametrize("n", [*range(1, 40), 1297, 50_000])
def test_every_item_comes_once_an_epoch(n):
    items = shuffled(np.arange(3 * n), n, seed=1).reshape(3, n)
    assert (np.sort(items, axis=1) == np.arange(n)).all()


def test_any_position_gives_the_same_item_alone_as_in_the_whole():
    whole = shuffled(np.arange(300), 97, seed=4)
    alone = [int(shuffled(np.array([p]), 97, seed=4)[0]) for p in range(300)]
    assert alone == whole.tolist()


def test_far_positions_and_large_seeds_work():
    items = shuffled(np.array([10**15, 2**60]), 60_000, seed=2**63 - 1)
    assert ((items >= 0) & (items < 60_000)).all()


def test_all_orders_of_four_are_as_likely():
    orders = shuffled(np.arange(4 * 6000), 4, seed=0).reshape(-1, 4)
    ranks = {order: k for k, order in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([ranks[tuple(order)] for order in orders.tolist()], minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.slow
def test_places_neighbours_and_epochs_are_as_if_by_chance():
    n = 1000
    orders = shuffled(np.arange(n * 1000), n, seed=3).reshape(-1, n)
    assert stats.chisquare(np.bincount(orders[:, 0] // 10, minlength=100)).pvalue > 1e-4
    steps = np.bincount((np.diff(orders, axis=1) % n).ravel(), minlength=n)[1:]
    assert stats.chisquare(steps).pvalue > 1e-4
    assert abs(np.corrcoef(orders[:-1].ravel(), orders[1:].ravel())[0, 1]) < 0.005
