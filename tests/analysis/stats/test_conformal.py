import math

import numpy as np
import pytest

from foretune.analysis.stats.conformal import (
    first_crossing,
    run_maximum,
    stop_threshold,
)


@pytest.mark.parametrize(
    ("n", "alpha", "k"),
    [(19, 0.05, 19), (99, 0.01, 99), (9, 0.1, 9), (20, 0.05, 20), (39, 0.05, 38), (149, 0.18, 123)],
)
def test_the_threshold_is_the_kth_smallest(n, alpha, k):
    maxima = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = stop_threshold(maxima, alpha=alpha)
    assert (found.value, found.alpha, found.n) == (k, alpha, n)
    assert found.status == f"ok: number {k} of {n} healthy runs' maxima in rising order"


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9)])
def test_too_few_runs_cannot_tell_and_nothing_is_stopped(alpha, needed):
    found = stop_threshold(np.zeros(needed - 1), alpha=alpha)
    assert math.isnan(found.value)
    assert found.status == (
        f"cannot tell: alpha {alpha:g} needs {needed} healthy runs, got {needed - 1}"
    )
    assert math.isnan(first_crossing([0, 1], [1e9, math.inf], found.value))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0])
def test_alpha_is_a_share(alpha):
    with pytest.raises(ValueError, match="alpha must lie between 0 and 1, got"):
        stop_threshold(np.zeros(100), alpha=alpha)


def test_a_maximum_of_nan_is_refused_and_silence_is_minus_infinity():
    with pytest.raises(ValueError, match="a run without any score has the maximum -inf"):
        stop_threshold(np.array([math.nan] * 30), alpha=0.05)
    silent = [run_maximum([math.nan, math.nan])] * 19
    assert stop_threshold(silent, alpha=0.05).value == -math.inf
    assert run_maximum([]) == -math.inf
    assert run_maximum([1.0, math.nan, 3.0, 2.0]) == 3.0


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 19), (0.05, 60), (0.1, 33), (0.01, 99)])
def test_healthy_runs_are_stopped_no_more_often_than_promised(alpha, n):
    """Runs of dependent steps, where a test per step would stop most of them."""
    rng, draws, steps = np.random.default_rng(1), 3000, 40
    stopped = 0
    pool = np.empty((1500, steps))
    pool[:, 0] = rng.normal(size=1500)
    for step in range(1, steps):
        pool[:, step] = 0.9 * pool[:, step - 1] + rng.normal(0, math.sqrt(1 - 0.81), 1500)
    for _ in range(draws):
        chosen = pool[rng.choice(1500, n + 1, replace=False)]
        line = stop_threshold(chosen[:n].max(axis=1), alpha=alpha)
        crossed = first_crossing(np.arange(steps), chosen[n], line.value)
        stopped += not math.isnan(crossed)
    rate = stopped / draws
    error = math.sqrt(alpha * (1 - alpha) / draws)
    # Not far below either: at most 1 / (n + 1), or the bound would be waste.
    assert alpha - 1 / (n + 1) - 4 * error < rate < alpha + 4 * error


def test_a_run_is_stopped_above_the_threshold_and_not_at_it():
    steps, scores = [0, 10, 20, 30], [math.nan, 5.0, 5.1, 7.0]
    assert first_crossing(steps, scores, 5.0) == 20
    assert math.isnan(first_crossing(steps, scores, 7.0))
    assert first_crossing(steps, [0, 0, math.inf, 0], 7.0) == 20
    assert math.isnan(first_crossing([], [], 0.0))
    with pytest.raises(ValueError, match="steps must rise"):
        first_crossing([0, 0], [1, 2], 0.5)
    with pytest.raises(ValueError, match="every step must have a score"):
        first_crossing([0, 1], [1], 0.5)


def test_crossing_and_the_maximum_agree():
    rng = np.random.default_rng(2)
    for _ in range(50):
        scores = np.where(rng.random(30) < 0.3, math.nan, rng.normal(size=30))
        line = rng.normal(1.0)
        at = first_crossing(np.arange(30), scores, line)
        above = np.flatnonzero(scores > line)
        assert at == above[0] if len(above) else math.isnan(at)
        assert (run_maximum(scores) > line) == bool(len(above))
