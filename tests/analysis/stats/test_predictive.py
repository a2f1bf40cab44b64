import numpy as np
import pytest
from scipy import stats

from foretune.analysis.stats.predictive import mix, student_t


def test_a_single_student_has_its_closed_form_quantiles():
    median, low, high = student_t(1.0, 2.0, 7.0).interval(0.9)
    assert median == pytest.approx(1.0)
    assert (low, high) == pytest.approx(stats.t.interval(0.9, 7, loc=1, scale=2))


def test_a_mixture_inverts_its_own_distribution():
    mixed = mix([student_t(-1, 0.1, 5), student_t(2, 0.5, 9)], np.array([0.3, 0.7]))
    levels = np.array([0.01, 0.1, 0.29, 0.31, 0.5, 0.99])
    found = mixed.quantile(levels)
    assert [mixed.below(float(x)) for x in found] == pytest.approx(levels, abs=1e-9)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.3, 4.0])
def test_the_crps_is_a_normals(value):
    z, normal = value, stats.norm
    expected = z * (2 * normal.cdf(z) - 1) + 2 * normal.pdf(z) - 1 / np.sqrt(np.pi)
    assert student_t(0, 1, 1e9).crps(value) == pytest.approx(expected, rel=0.01)


def test_a_mixture_of_equals_scores_like_one():
    one = student_t(0, 1, 6)
    two = mix([one, one], np.array([0.5, 0.5]))
    assert two.crps(0.7) == pytest.approx(one.crps(0.7), rel=1e-6)
