"""Epochs in random order, any position at once: no list of n numbers is made or stored.

A Feistel network on pairs (i, j) of a rows and b columns, each half moved round by a hash of the
other, is a bijection of a x b whatever the hash; walking on until a value is below n makes it one
of 0 to n - 1 (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains", section 5).
"""

import math

import numpy as np

ROUNDS = 6
SPREAD = np.uint64(0xBF58476D1CE4E5B9)
"""An odd multiplier that carries every bit upwards (SplitMix64: Steele et al., 2014)."""
HALF = np.uint64(32)


def shuffled(positions: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Returns which of n items comes at each position of an endless stream, int64.

    Positions e n to e n + n - 1 are epoch e: every item once, in an order drawn from (seed, e).
    """
    items = np.empty(len(positions), np.int64)
    epochs, places = np.divmod(positions, n)
    for epoch in np.unique(epochs):
        bits = np.random.Philox(key=[seed, int(epoch)], counter=[0, 0, 0, 5])
        chosen = epochs == epoch
        items[chosen] = _permuted(places[chosen], n, bits.random_raw(ROUNDS))
    return items


def _permuted(places: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)  # At most columns - 1 pairs too many, so hardly ever a second turn.
    a, b = np.uint64(rows), np.uint64(columns)
    values = _network(places.astype(np.uint64), a, b, keys)
    while (beyond := values >= n).any():
        values[beyond] = _network(values[beyond], a, b, keys)
    return values.astype(np.int64)


def _network(values: np.ndarray, a: np.uint64, b: np.uint64, keys: np.ndarray) -> np.ndarray:
    i, j = np.divmod(values, b)
    for even, odd in keys.reshape(-1, 2):
        i = (i + _hash(j, even)) % a
        j = (j + _hash(i, odd)) % b
    return i * b + j


def _hash(half: np.ndarray, key: np.uint64) -> np.ndarray:
    """Returns 32 bits that depend on every bit of both."""
    mixed = (half ^ key) * SPREAD
    return ((mixed ^ (mixed >> HALF)) * SPREAD) >> HALF
