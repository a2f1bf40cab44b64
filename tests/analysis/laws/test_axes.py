"""Effects of axes beyond N are recovered, and what was never varied can't be known."""

import math

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.laws.axes import AXES, fit_axes, predict_at

USUAL = {"model.depth": 3, "model.head_dim": 16, "data.sequence_length": 64, "batch_size": 8}
SLOPE, DEPTH, STEPS = -0.5, 0.2, -0.15


def truth(n_params, depth, steps):
    return 10 ** (
        -1.7
        + SLOPE * (math.log10(n_params) - 5)
        + DEPTH * math.log10(depth / 3)
        + STEPS * math.log10(steps / 300)
    )


def crossings(noise=0.02, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for n in (1e4, 4e4, 1.5e5):
        for depth, steps in ((3, 300), (3, 300), (2, 300), (6, 300), (3, 150), (3, 1000)):
            lr = truth(n, depth, steps) * 10 ** rng.normal(0, noise)
            rows.append({**USUAL, "n_params": n, "model.depth": depth, "steps": steps, "seed": 0}
                        | {"critical_lr": lr, "low": lr, "high": lr})  # fmt: skip
    return pd.DataFrame(rows)


def test_planted_effects_are_recovered():
    law = fit_axes(crossings())
    assert law.axes == ("model.depth", "steps")
    effects = law.effects()
    for name, value in (("n_params", SLOPE), ("model.depth", DEPTH), ("steps", STEPS)):
        assert effects.loc[name, "effect"] == pytest.approx(value, abs=0.06)
        assert effects.loc[name, "low"] < value < effects.loc[name, "high"]
    found = law.predict(6e5, {"model.depth": 6, "steps": 1000})
    assert found.median == pytest.approx(truth(6e5, 6, 1000), rel=0.15)
    assert found.low < truth(6e5, 6, 1000) < found.high


def test_outside_what_was_varied_it_can_not_tell():
    law = fit_axes(crossings())
    assert (
        "steps 5000 lies outside the fitted 150 to 1000" in law.predict(1e5, {"steps": 5000}).status
    )
    assert "the limit is 64 times" in law.predict(1e8, {}).status
    with pytest.raises(ValueError, match="needs crossings at two sizes, got 1"):
        fit_axes(crossings().query("n_params == 1e4"))


def runs(steps):
    """Real-shaped records: logits that cross 100 where the truth says."""
    trials, rows = [], []
    for n in (1e4, 4e4):
        for total in steps:
            for lr in (1e-3, 1e-2, 1e-1, 1.0):
                name = f"{n:g}-{total}-{lr:g}"
                trials.append({**USUAL, "run_id": name, "n_params": n, "size": n, "steps": total}
                              | {"optimizer.lr": lr, "seed": 0, "outcome": "finished"}
                              | {"loss_at_init": 6.0, "reference_loss": 3.0, "final_val_loss": 2.0}
                              | {"diverged": False, "last_step": total})  # fmt: skip
                value = 100 * (lr / truth(n, 3, total)) ** 2
                rows += [{"run_id": name, "step": s, "max_attention_logit": value}
                         for s in range(0, total, 10)]  # fmt: skip
    return pd.DataFrame(trials), pd.DataFrame(rows)


def test_a_sweep_that_varied_steps_is_asked_about_steps():
    found = predict_at(*runs((150, 300)), n_params=4e4, settings={"steps": 150}, threshold=100.0)
    assert found.median == pytest.approx(truth(4e4, 3, 150), rel=0.15)
    one = predict_at(*runs((300,)), n_params=4e4, settings={"steps": 150}, threshold=100.0)
    assert one.status == "cannot tell: steps was 300 wherever the signal crossed; vary it"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model.width": 32}, r"^at must name one of model\.depth, .*, got model\.width"),
        ({"steps": 0}, "^at steps must be a positive number, got 0"),
        ({"steps": "many"}, "^at steps must be a positive number, got 'many'"),
    ],
)
def test_what_is_no_axis_is_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        predict_at(*runs((300,)), n_params=4e4, settings=settings, threshold=100.0)
    assert "steps" in AXES
