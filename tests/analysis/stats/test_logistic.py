import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from foretune.analysis.stats.logistic import Logistic, fit_logistic, sigmoid


def drawn(count=4000, seed=0):
    """Two columns of very different units, and labels of log odds 0.3 + 1.2 z1 - 2 z2."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, 2))
    labels = rng.random(count) < sigmoid(0.3 + z @ [1.2, -2.0])
    return z * [3e4, 1e-3] + [5.0, 1.0], labels.astype(float)


def test_known_coefficients_are_recovered():
    fit = fit_logistic(*drawn(20_000), l2=1e-6)
    np.testing.assert_allclose(fit.coefficients, [1.2, -2.0], atol=0.08)
    assert fit.intercept == pytest.approx(0.3, abs=0.06)


def test_it_agrees_with_scikit_learn():
    design, labels = drawn(300)
    ours = fit_logistic(design, labels, l2=1e-2)
    standard = (design - ours.mean) / ours.scale
    theirs = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-10).fit(standard, labels)
    np.testing.assert_allclose(
        ours.probability(design), theirs.predict_proba(standard)[:, 1], atol=1e-4
    )


def test_the_units_of_a_column_do_not_matter():
    design, labels = drawn(300)
    near = fit_logistic(design, labels, l2=1e-2).probability(design)
    far = fit_logistic(design * [1e-6, 1e6] + 7, labels, l2=1e-2).probability(
        design * [1e-6, 1e6] + 7
    )
    np.testing.assert_allclose(near, far, atol=1e-6)


@pytest.mark.parametrize("l2", [1e-8, 1e-2, 1.0])
def test_separable_labels_give_a_finite_fit(l2):
    design = np.arange(20.0)[:, None]
    fit = fit_logistic(design, design[:, 0] >= 10, l2=l2)
    assert np.isfinite([*fit.coefficients, fit.intercept]).all()
    probability = fit.probability(design)
    assert (np.diff(probability) >= 0).all()
    assert ((probability >= 0.5) == (design[:, 0] >= 10)).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_of_one_kind_give_that_kind(label):
    design, _ = drawn(50)
    probability = fit_logistic(design, np.full(50, label), l2=1e-2).probability(design)
    assert np.isfinite(probability).all()
    assert (np.abs(probability - label) < 0.05).all()


def test_a_weight_counts_a_row_so_often():
    design, labels = drawn(60)
    times = np.arange(60) % 3
    weighted = fit_logistic(design, labels, l2=1e-2, weights=times)
    repeated = fit_logistic(np.repeat(design, times, 0), np.repeat(labels, times), l2=1e-2)
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, atol=1e-5)


def test_a_constant_column_says_nothing_and_no_column_gives_the_base_rate():
    design, labels = drawn(200)
    design[:, 1] = 4.2
    assert fit_logistic(design, labels, l2=1e-2).coefficients[1] == 0
    alone = fit_logistic(np.empty((200, 0)), labels, l2=1e-6)
    assert alone.probability(np.empty((1, 0)))[0] == pytest.approx(labels.mean(), abs=1e-4)


def test_a_fit_survives_json_to_the_bit():
    fit = fit_logistic(*drawn(100), l2=1e-2)
    assert Logistic.from_json(fit.to_json()) == fit


def test_a_row_that_is_not_finite_has_no_probability():
    fit = fit_logistic(*drawn(100), l2=1e-2)
    probability = fit.probability(np.array([[5.0, 1.0], [np.nan, 1.0], [5.0, np.inf]]))
    assert np.isnan(probability).tolist() == [False, True, True]


def test_extreme_rows_do_not_overflow():
    fit = fit_logistic(*drawn(100), l2=1e-2)
    assert fit.probability(np.array([[1e300, 1.0], [-1e300, 1.0]])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3)}, "one row per label"),
        ({"design": np.full((4, 1), np.nan)}, "must be finite"),
        ({"labels": np.array([0, 1, 0, np.inf])}, "must be finite"),
        ({"l2": 0.0}, "above 0"),
        ({"weights": np.zeros(4)}, "above 0"),
        ({"weights": np.array([1.0, 1, 1, -1])}, "no weight below"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(change, message):
    given = {"design": np.arange(4.0)[:, None], "labels": np.array([0, 1, 0, 1]), "l2": 1e-2}
    with pytest.raises(ValueError, match=message):
        fit_logistic(**{**given, **change})
