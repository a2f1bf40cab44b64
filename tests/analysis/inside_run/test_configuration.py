import numpy as np
import pandas as pd
import pytest

from foretune.analysis.inside_run.configuration import Configuration
from foretune.analysis.stats.logistic import sigmoid


def sweep(count=2000, seed=0):
    """Contexts and labels: log odds 3 (log10 lr + 2) + (log10 N - 5) - 4 qk_norm + 2 if vit."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "lr": 10 ** rng.uniform(-3.5, 0, count),
            "n_params": (10 ** rng.uniform(3.5, 6, count)).astype(int),
            "total_steps": rng.choice([150, 300, 2000], count),
            "loss_at_init": rng.normal(6, 1, count),
            "seed": rng.integers(0, 3, count),
            "model.qk_norm": rng.random(count) < 0.5,
            "model.kind": rng.choice(["transformer", "vit", "other"], count),
            "model.width": rng.choice([16, 32], count),
            "optimizer.weight_decay": rng.choice([0.0, 1e-4, 1e-3], count),
            "data.name": "stdlib",
        }
    )
    frame["optimizer.lr"] = frame["lr"]
    frame["schedule.decay_steps"] = 2 * frame["total_steps"]
    odds = 3 * (np.log10(frame["lr"]) + 2) + np.log10(frame["n_params"]) - 5
    odds += -4 * frame["model.qk_norm"] + 2 * (frame["model.kind"] == "vit")
    return frame, (rng.random(count) < sigmoid(odds)).astype(float)


@pytest.fixture(scope="module")
def fitted():
    return Configuration.fit(*sweep(), l2=1e-4)


def probability_of(fitted, **changes):
    context = {
        "lr": 1e-2,
        "n_params": 100_000,
        "total_steps": 300,
        "model.qk_norm": False,
        "model.kind": "transformer",
        "optimizer.weight_decay": 1e-4,
        **changes,
    }
    return fitted(pd.DataFrame(), context).probability


def test_it_recovers_what_the_configuration_does(fitted):
    assert probability_of(fitted) == pytest.approx(0.5, abs=0.1)
    assert probability_of(fitted, lr=1e-1) == pytest.approx(sigmoid(np.array(3.0)), abs=0.03)
    assert probability_of(fitted, **{"lr": 1e-1, "model.qk_norm": True}) < 0.4
    assert probability_of(fitted, **{"model.kind": "vit"}) == pytest.approx(0.88, abs=0.06)
    assert probability_of(fitted, n_params=10_000_000) == pytest.approx(0.88, abs=0.1)


def test_features_are_the_varying_switches_each_once(fitted):
    kinds = {(f.field, f.kind) for f in fitted.features}
    assert kinds == {
        ("lr", "log10"),
        ("n_params", "log10"),
        ("model.qk_norm", "number"),
        ("model.kind", "category"),
        ("optimizer.weight_decay", "number"),
        ("schedule.decay_steps", "log10"),
    }


def test_an_unseen_category_is_none_of_the_seen_ones(fitted):
    seen = [
        probability_of(fitted, **{"model.kind": kind}) for kind in ("transformer", "vit", "other")
    ]
    assert min(seen) < probability_of(fitted, **{"model.kind": "convnet"}) < max(seen)


def test_what_is_missing_counts_as_the_mean(fitted):
    whole = {"lr": 1e-2, "n_params": 100_000, "model.kind": "vit", "total_steps": 300}
    missing = fitted(pd.DataFrame(), whole).probability
    low, high = (
        probability_of(fitted, **{"model.kind": "vit", "model.qk_norm": q}) for q in (True, False)
    )
    assert low < missing < high
    assert fitted(pd.DataFrame(), {"n_params": 1e5}).status.startswith("cannot tell")


def test_the_learning_rate_may_stand_under_its_path(fitted):
    frame, labels = sweep()
    by_path = Configuration.fit(frame.drop(columns="lr"), labels, l2=1e-4)
    assert by_path == fitted
    context = {"n_params": 1e5, "optimizer.lr": 0.1}
    assert fitted(pd.DataFrame(), context) == fitted(pd.DataFrame(), {"n_params": 1e5, "lr": 0.1})


def test_history_is_nothing_to_it(fitted):
    context = {"lr": 1e-2, "n_params": 1e5}
    doomed = pd.DataFrame({"loss": [1e9], "max_attention_logit": [1e9]})
    assert fitted(doomed, context) == fitted(pd.DataFrame(), context)


def test_runs_without_a_label_are_refused():
    frame, _ = sweep(10)
    with pytest.raises(ValueError, match="finite"):
        Configuration.fit(frame, np.full(10, np.nan))
