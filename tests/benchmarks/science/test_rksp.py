from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.science.rksp import mass_near_one, run_of, score, scores_of
from foretune.tuner.config.resolve import resolve

BANK = Path(__file__).parents[3] / "benchmarks" / "bank" / "trials.parquet"


def states(width=8, count=400):
    return np.random.default_rng(0).normal(size=(width, count)) * np.arange(1, width + 1)[:, None]


def test_the_identity_has_all_its_mass_near_one():
    assert mass_near_one(states(), states()) == 1


@pytest.mark.parametrize(("factor", "mass"), [(0.5, 0), (0.89, 0), (0.91, 1), (1.04, 1), (1.1, 0)])
def test_a_scaled_stream_is_near_one_between_its_bounds(factor, mass):
    assert mass_near_one(states(), factor * states() + 3) == mass


def test_a_rotation_is_near_one_and_a_mixed_map_counts_its_eigenvalues():
    x, rng = states(), np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    assert mass_near_one(x, rotation @ x) == 1
    basis = rng.normal(size=(8, 8))
    mixed = basis @ np.diag([1.0, 1, 1, 0.5, 0.5, 2, 0.3, 0.99]) @ np.linalg.inv(basis)
    assert mass_near_one(x, mixed @ x) == 0.5


def test_modes_that_the_map_does_not_explain_are_dropped():
    x = states()
    # Half of the coordinates are kept, the others replaced by noise of eigenvalue near 0.
    y = np.vstack([x[:4], np.random.default_rng(2).normal(size=(4, x.shape[1]))])
    assert mass_near_one(x, y) == 0.5
    assert mass_near_one(x, y, tau=0.1) == 1


def test_it_is_the_same_twice_blind_to_the_learning_rate_and_high_for_small_branches():
    run = resolve("lm-tiny", size=16)
    generator = torch.get_rng_state()
    first = score(run)
    assert torch.equal(generator, torch.get_rng_state())
    assert 0 <= first <= 1
    assert score(run) == first
    assert score(resolve("lm-tiny", size=16, overrides={"optimizer.lr": 0.3})) == first
    assert score(resolve("lm-tiny", size=16, overrides={"model.init_gain": 0.1})) > 0.9


def test_convolutional_networks_are_refused():
    with pytest.raises(ValueError, match="token states"):
        score(resolve("cnn-tiny", size=16))


def test_a_run_of_the_bank_is_the_one_that_its_row_describes():
    trials = pd.read_parquet(BANK)
    for part in ("core", "ternary", "images", "text"):
        for trial in trials[trials["part"] == part].tail(1).to_dict("records"):
            run = run_of(trial)
            own = (run.seed, run.model.width, run.model.qk_norm, run.data.name, run.batch_size)
            names = ("seed", "model.width", "model.qk_norm", "data.name", "batch_size")
            assert own == tuple(trial[name] for name in names)
            assert run.quantization.format == trial["quantization.format"]


def test_rows_that_differ_in_their_learning_rate_alone_have_one_score():
    trials = pd.read_parquet(BANK)
    alike = trials[trials["part"].eq("core") & trials["size"].eq(16) & trials["seed"].eq(1)]
    found = scores_of(alike[alike["model.qk_norm"].eq(False)])
    assert len(found) == alike["optimizer.lr"].nunique() > 1
    assert found.nunique() == 1
    assert 0 <= found.iloc[0] <= 1
