"""Labels mean what they say: excess of what there was to gain, and only above the best rate."""

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.measures.labels import label_runs, spike_score

REFERENCE = 3.0


def trial(run_id, lr, loss, *, seed=0, size=32.0, qk=False, part="core", **more):
    return {
        "run_id": run_id,
        "size": size,
        "optimizer.lr": lr,
        "seed": seed,
        "model.qk_norm": qk,
        "steps": 100,
        "part": part,
        "final_val_loss": loss,
        "reference_loss": REFERENCE,
        "outcome": "finished",
        "diverged": False,
    } | more


def labels(rows, curves=None, **options):
    telemetry = pd.DataFrame(
        [
            {"run_id": run_id, "step": step, "loss": loss}
            for run_id, losses in (curves or {}).items()
            for step, loss in enumerate(losses)
        ],
        columns=["run_id", "step", "loss"],
    )
    return label_runs(pd.DataFrame(rows), telemetry, **options)


GRID = [
    trial("slow", 1e-3, 2.9),
    trial("best", 1e-2, 2.0),
    trial("degraded", 3e-2, 2.2),
    trial("unstable", 1e-1, 2.5),
    trial("nan", 1.0, 2.1, outcome="diverged", diverged=True),
    trial("stopped", 3e-1, 2.0, outcome="stopped"),
]


def test_a_rate_below_the_best_is_undertrained_not_unstable():
    found = labels(GRID)
    assert "stopped" not in found.index
    assert found["best"].unique().tolist() == [2.0]
    assert found["best_lr"].unique().tolist() == [1e-2]
    assert found.index[found["unstable"]].tolist() == ["unstable", "nan"]
    assert found.index[found["degraded"]].tolist() == ["degraded", "unstable", "nan"]
    assert found.index[found["doomed"]].tolist() == ["slow", "unstable", "nan"]
    assert found.index[found["healthy"]].tolist() == ["best"]
    assert found.loc["nan", "excess"] == 1
    assert found.loc["nan", "collapsed"]


def test_the_level_moves_unstable_alone():
    found = labels(GRID, level=0.15)
    assert found.index[found["unstable"]].tolist() == ["degraded", "unstable", "nan"]
    assert found.index[found["degraded"]].tolist() == ["degraded", "unstable", "nan"]


def test_each_configuration_and_size_has_its_own_best():
    rows = [*GRID[:4], trial("wide", 1e-2, 1.8, size=64.0), trial("cured", 1e-2, 2.4, qk=True)]
    found = labels(rows)
    assert found.loc["wide", "excess"] == 0
    assert found.loc["cured", "excess"] == 0
    assert found.loc["unstable", "excess"] == 0.5
    assert found["group"].nunique() == 3


def test_best_is_the_lowest_mean_over_seeds_and_noise_is_no_degradation():
    noisy = [trial(f"a{s}", 1e-2, loss, seed=s) for s, loss in enumerate((1.9, 2.0, 2.1))]
    above = [trial(f"b{s}", 3e-2, loss, seed=s) for s, loss in enumerate((2.09, 2.2, 2.39))]
    found = labels([*noisy, *above])
    assert found["best"].unique() == pytest.approx([2.0])
    assert found.loc["a0", "excess"] == pytest.approx(-0.1)
    assert not found["degraded"].any()  # 4 sigmas are 0.4.
    quiet = [trial(f"a{s}", 1e-2, loss, seed=s) for s, loss in enumerate((1.99, 2.0, 2.01))]
    assert labels([*quiet, *above])["degraded"].tolist() == [False] * 3 + [False, True, True]


def test_a_searched_configuration_is_unstable_where_a_third_of_the_rate_is_better():
    def twins(seed, loss, third):
        return [
            trial(f"{seed}", 0.3, loss, seed=seed, part="random-1"),
            trial(f"{seed}-qk", 0.3, 2.05, seed=seed, part="random-1", qk=True),
            trial(f"{seed}-third", 0.1, third, seed=seed, part="random-1"),
        ]

    found = labels([*twins(1, 2.6, 2.06), *twins(2, 2.6, 2.7), *twins(3, 2.0, 2.3)])
    assert found["best"].unique().tolist() == [2.0]  # The whole search is one group.
    assert found.index[found["doomed"]].tolist() == ["1", "2", "2-third"]
    assert found.index[found["unstable"]].tolist() == ["1"]
    # A run that lost much has no label without a twin of its own; one that lost little is healthy.
    assert found.index[~found["known"]].tolist() == ["2-third", "3-third"]
    assert not found.loc[["2-third", "3-third"], "healthy"].any()
    assert found.loc[["1-third", "1-qk", "3"], "healthy"].all()


def test_collapse_and_spikes_are_read_off_the_training_loss():
    rng = np.random.default_rng(0)
    flat = 2.0 + 0.05 * rng.standard_normal(400)
    spiky = flat.copy()
    spiky[100::40] = 4.0
    lost = np.concatenate([flat[:300], np.full(100, 3.5)])
    rows = [trial(name, lr, 2.0) for name, lr in (("flat", 1), ("spiky", 2), ("lost", 3))]
    found = labels(rows, {"flat": flat, "spiky": spiky, "lost": lost})
    assert found["spiky"].tolist() == [False, True, False]
    assert found["collapsed"].tolist() == [False, False, True]
    assert spike_score(pd.Series(flat)) == 0
    assert spike_score(pd.Series(dtype=float)) == 0
