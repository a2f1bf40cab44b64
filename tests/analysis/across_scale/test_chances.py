"""Chances of many runs are what `predict` says of each."""

import pytest
from synthetic import Truth

from foretune import analysis
from foretune.analysis.across_scale.chances import Chances


def test_they_are_those_of_predictions_to_the_bit(sweep):
    records = analysis.load(sweep)
    chances = Chances(records)
    for cured, width, lr in (("false", 32, 1e-1), ("false", 128, 7e-3), ("true", 128, 1e-2)):
        family, n_params = f"model.qk_norm={cured}", Truth(width=width).n_params
        alone = analysis.predict(records, n_params=n_params, lr=lr, family=family)
        assert chances.unstable(family, n_params, lr) == (alone.probability, alone.reason)


def test_a_question_that_asks_for_nothing_is_refused(sweep):
    chances = Chances(analysis.load(sweep))
    with pytest.raises(ValueError, match=r"family must be one of model.qk_norm=false; model"):
        chances.unstable("none", 1e5, 1e-2)
    with pytest.raises(ValueError, match="lr must be positive and finite, got 0"):
        chances.unstable("model.qk_norm=true", 1e5, 0.0)
