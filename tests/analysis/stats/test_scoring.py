import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from foretune.analysis.stats.scoring import (
    auroc,
    brier,
    coverage,
    expected_calibration_error,
    interval_score,
    precision_recall,
    reliability,
)
from foretune.analysis.stats.uncertainty import (
    bootstrap_interval,
    cluster_codes,
    clustered_proportion,
    on_rows,
    paired_difference,
    proportion,
)

LABELS = np.array([0, 0, 1, 0, 1, 1, 0, 1], bool)


def counted_auroc(scores, labels, weights):
    """Every pair by hand."""
    won = total = 0.0
    for i, j in itertools.product(np.flatnonzero(labels), np.flatnonzero(~labels)):
        equal = scores[i] == scores[j] or math.isnan(scores[i]) or math.isnan(scores[j])
        won += weights[i] * weights[j] * (0.5 if equal else float(scores[i] > scores[j]))
        total += weights[i] * weights[j]
    return won / total


@pytest.mark.parametrize("seed", range(20))
def test_auroc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[True, False], rng.random(40) < 0.4])
    scores = np.round(rng.normal(labels, 1.0), 1)
    scores[rng.random(42) < 0.2] = math.nan
    scores[5], scores[6] = math.inf, -math.inf
    weights = rng.integers(0, 4, 42) + np.array([1, 1] + [0] * 40)
    expected = counted_auroc(scores, labels, np.ones(42))
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-12)
    expected = counted_auroc(scores, labels, weights)
    assert auroc(scores, labels, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [(LABELS * 2.0, 1.0), (LABELS * -2.0, 0.0), (np.full(8, 3.0), 0.5), (np.full(8, np.nan), 0.5)],
    ids=["perfect", "reversed", "constant", "silent"],
)
def test_auroc_of_known_forecasts(scores, expected):
    assert auroc(scores, LABELS) == expected


def test_silence_on_half_the_runs_costs_half_the_distance_to_a_coin():
    scores = LABELS.astype(float)
    scores[LABELS.nonzero()[0][:2]] = math.nan
    assert auroc(scores, LABELS) == pytest.approx(0.75)


@pytest.mark.parametrize("labels", [np.zeros(3), np.ones(3), np.zeros(0)])
def test_auroc_needs_both_classes(labels):
    assert math.isnan(auroc(np.arange(len(labels)), labels))


def test_bad_labels_lengths_and_weights_are_refused():
    with pytest.raises(ValueError, match="labels must be a row of true and false"):
        auroc([1.0, 2.0], [0.0, math.nan])
    with pytest.raises(ValueError, match="scores must have one value per label"):
        auroc([1.0], [0, 1])
    with pytest.raises(ValueError, match="weights must be 0 or more, got -1"):
        auroc([1.0, 2.0], [0, 1], [1, -1])
    with pytest.raises(ValueError, match=r"probabilities must lie in 0..1, got 0.5 to 7"):
        brier([0.5, 7.0], [0, 1])


@pytest.mark.parametrize(
    ("k", "n", "high"), [(0, 59, 0.0495), (0, 30, 0.0950), (0, 10, 0.2589)], ids=str
)
def test_no_hits_bound_the_share(k, n, high):
    found = proportion(k, n, level=0.9)
    assert (found.k, found.n, found.value, found.low) == (k, n, 0.0, 0.0)
    assert found.high == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 17), (10, 10), (1, 1)])
def test_proportions_agree_with_scipy(k, n):
    exact = stats.binomtest(k, n).proportion_ci(confidence_level=0.95, method="exact")
    found = proportion(k, n, level=0.95)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_the_share_of_nothing_is_unknown():
    for found in (proportion(0, 0), clustered_proportion([], [])):
        assert math.isnan(found.value)
        assert (found.low, found.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 <= k <= n, got 3 of 2"):
        proportion(3, 2)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 90"):
        proportion(1, 2, level=90)


def test_copies_of_a_run_count_once():
    hits = np.array([1, 0, 0, 0, 1, 0, 0, 1, 0, 0])
    copied = clustered_proportion(np.repeat(hits, 20), np.repeat(np.arange(10), 20))
    assert (copied.k, copied.n, copied.value) == (60, 200, 0.3)
    # Ten runs, less what a variance from ten clusters is worth: 7.35 by Korn and Graubard.
    t_runs, t_clusters = stats.t.ppf(0.95, [199, 9])
    n = 200 * 9 / 199 * (t_runs / t_clusters) ** 2
    assert copied.low == pytest.approx(stats.beta.ppf(0.05, 0.3 * n, 0.7 * n + 1))
    assert copied.high == pytest.approx(stats.beta.ppf(0.95, 0.3 * n + 1, 0.7 * n))


def test_clusters_of_one_are_the_plain_interval():
    hits = np.array([1, 0, 0, 1, 0, 0, 0])
    assert clustered_proportion(hits, np.arange(7)) == proportion(2, 7)


@pytest.mark.parametrize("seed", range(10))
def test_a_clustered_interval_is_never_narrower(seed):
    rng = np.random.default_rng(seed)
    hits, clusters = rng.random(30) < rng.random(), rng.integers(0, rng.integers(1, 12), 30)
    plain, found = proportion(int(hits.sum()), 30), clustered_proportion(hits, clusters)
    assert found.low <= plain.low <= plain.high <= found.high


def test_without_any_hit_each_cluster_counts_as_one_run():
    found = clustered_proportion(np.zeros(60), np.repeat(np.arange(20), 3))
    assert (found.n, found.high) == (60, proportion(0, 20).high)
    assert clustered_proportion([1, 1, 0], ["a", "a", "a"]).high > 0.97


def test_the_clustered_interval_covers_correlated_runs():
    rng = np.random.default_rng(0)
    clusters, held, plain = np.repeat(np.arange(40), 5), 0, 0
    for _ in range(400):
        hits = np.repeat(rng.random(40) < 0.2, 5) ^ (rng.random(200) < 0.02)
        truth = 0.2 * 0.98 + 0.8 * 0.02
        found = clustered_proportion(hits, clusters)
        held += found.low <= truth <= found.high
        naive = proportion(int(hits.sum()), 200)
        plain += naive.low <= truth <= naive.high
    assert held / 400 > 0.88
    assert plain / 400 < 0.75


def test_clusters_may_be_tuples_or_columns():
    pairs = [(16, "a"), (16, "b"), (16, "a"), (32, "a")]
    frame = pd.DataFrame(pairs, columns=["size", "configuration"])
    assert cluster_codes(pairs).tolist() == cluster_codes(frame).tolist() == [0, 1, 0, 2]
    with pytest.raises(ValueError, match="every run must have a cluster, got 1 without one"):
        cluster_codes(["a", None])
    with pytest.raises(ValueError, match="one cluster, got 1 for 2 runs"):
        clustered_proportion([0, 1], ["a"])


def test_the_bootstrap_finds_the_error_of_a_mean_of_clusters():
    rng = np.random.default_rng(1)
    means = rng.normal(0, 1, 200)
    values = np.repeat(means, 4)
    found = bootstrap_interval(on_rows(np.mean, values), np.repeat(np.arange(200), 4))
    half = stats.norm.ppf(0.95) * means.std() / math.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert found.draws == 1000
    assert found == bootstrap_interval(on_rows(np.mean, values), np.repeat(np.arange(200), 4))


def test_the_bootstrap_says_when_it_cannot_tell():
    rows = on_rows(auroc, [1.0, 2.0, 3.0], [0, 0, 1])
    one = bootstrap_interval(rows, ["a", "a", "a"])
    assert (one.value, one.draws) == (1.0, 0)
    assert math.isnan(one.low)
    silent = bootstrap_interval(on_rows(auroc, [1.0, 2.0], [0, 0]), [0, 1], draws=20)
    assert (silent.draws, math.isnan(silent.low)) == (0, True)
    some = bootstrap_interval(rows, [0, 1, 2], draws=200)
    assert 100 < some.draws < 200


def test_pairing_sees_a_gain_that_separate_intervals_hide():
    rng = np.random.default_rng(2)
    labels = rng.random(150) < 0.5
    better = labels + rng.normal(0, 1.0, 150)
    worse = better + rng.normal(0, 0.4, 150)
    first, second = on_rows(auroc, better, labels), on_rows(auroc, worse, labels)
    gain = paired_difference(first, second, np.arange(150))
    own = [bootstrap_interval(one, np.arange(150)) for one in (first, second)]
    assert gain.value == pytest.approx(own[0].value - own[1].value)
    assert gain.low > 0
    assert own[0].low < own[1].high
    same = paired_difference(first, first, np.arange(150))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_calibrated_forecasts_have_no_calibration_error_and_shifted_ones_do():
    rng = np.random.default_rng(3)
    p = rng.random(20000)
    labels = rng.random(20000) < p
    assert expected_calibration_error(p, labels) < 0.015
    assert expected_calibration_error(np.clip(p + 0.2, 0, 1), labels) == pytest.approx(
        0.18, abs=0.02
    )
    table = reliability(p, labels)
    assert table["n"].tolist() == [2000] * 10
    assert ((table["low"] <= table["predicted"]) & (table["predicted"] <= table["high"])).sum() >= 7


def test_equal_probabilities_share_a_bin_whatever_the_order():
    labels = np.repeat([True, False], 50)
    assert expected_calibration_error(np.full(100, 0.5), labels) == 0.0
    assert len(reliability(np.full(100, 0.5), labels)) == 1


def test_silent_forecasts_have_no_calibration():
    assert brier([0.0, 1.0, math.nan], [0, 0, 1]) == pytest.approx(0.5)
    assert reliability([0.2, math.nan], [0, 1])["n"].tolist() == [1]
    for score in (brier, expected_calibration_error):
        assert math.isnan(score([math.nan], [1]))


def test_the_expected_error_of_a_calibrated_forecast_is_as_documented():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(200):
        p = 0.3 + 1e-6 * rng.random(200)
        found.append(expected_calibration_error(p, rng.random(200) < 0.3))
    expected = math.sqrt(2 * 10 * 0.3 * 0.7 / (math.pi * 200))
    assert np.mean(found) == pytest.approx(expected, rel=0.1)


def test_precision_and_recall_by_hand():
    precision, recall = precision_recall([1, 1, 1, 0, 0], [1, 1, 0, 1, 0])
    assert precision == proportion(2, 3)
    assert recall == proportion(2, 3)
    by_cluster, _ = precision_recall([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], clusters=list("aabcd"))
    assert by_cluster.high - by_cluster.low > precision.high - precision.low
    nothing, none = precision_recall([0, 0], [1, 0])
    assert (nothing.n, none.k, none.n) == (0, 0, 1)


def test_the_true_quantiles_have_the_lowest_interval_score():
    truth = np.random.default_rng(5).normal(3, 2, 100_000)
    low, high = stats.norm(3, 2).ppf([0.1, 0.9])

    def mean_score(shift_low, shift_high):
        return interval_score(low + shift_low, high + shift_high, truth, 0.8).mean()

    best = mean_score(0, 0)
    for shifts in [(-0.5, 0), (0.5, 0), (0, 0.5), (0, -0.5), (-1, 1), (1, 1)]:
        assert mean_score(*shifts) > best
    assert interval_score(0, 1, [0.5, 1.5, -0.5], 0.9) == pytest.approx([1, 11, 11])


def test_coverage_counts_the_intervals_that_were_told():
    found = coverage([0, 0, math.nan, 0], [1, 1, 1, math.inf], [0.5, 2.0, 0.5, 9.0])
    assert (found.k, found.n) == (2, 3)
    with pytest.raises(ValueError, match="low must not be above high, got 1 that are"):
        coverage([2], [1], [0])
