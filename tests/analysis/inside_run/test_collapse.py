"""The collapse residual: nothing on the common course at any size, signed off it, and causal."""

import math

import numpy as np
import pandas as pd
import pytest
from predictor_cases import CONTEXT, broken_contexts, broken_histories, healthy

from foretune.analysis.inside_run.collapse import Collapse

STEPS = 200


def course(final=2.0, steps=STEPS, *, bent_from=1.0, bend=0.0):
    """A loss of its own height on the common course, which may bend upwards from a share on."""
    share = (np.arange(steps) + 1) / steps
    loss = final * share**-0.2 * (1 + bend * np.maximum(share - bent_from, 0))
    return pd.DataFrame({"step": np.arange(steps), "loss": loss})


def fitted(finals=(1.5, 2.0, 3.0), lengths=(STEPS,)):
    runs = {f"{final}-{n}": (course(final, n), n) for final in finals for n in lengths}
    trials = pd.DataFrame({"run_id": [*runs], "steps": [n for _, n in runs.values()]})
    rows = pd.concat([run.assign(run_id=name) for name, (run, _) in runs.items()])
    return Collapse.fit(trials, rows)


@pytest.mark.parametrize("final", [0.3, 2.0, 40.0])
@pytest.mark.parametrize("seen", [20, 60, 200])
def test_on_the_course_there_is_no_residual_whatever_the_loss(final, seen):
    # What is left is the smoothing of a curve that is steep at its start, and the grid's.
    assert fitted().residual(course(final).head(seen), STEPS) == pytest.approx(0, abs=0.01)


def test_a_loss_that_leaves_the_course_has_a_residual_of_its_sign():
    model = fitted()
    for bend in (0.5, -0.5):
        run = course(bent_from=0.3, bend=bend)
        assert abs(model.residual(run.head(60), STEPS)) < 0.01
        values = [model.residual(run.head(seen), STEPS) for seen in (80, 120, 160)]
        assert np.sign(bend) * values[-1] > 0.02
        assert np.all(np.diff(np.sign(bend) * np.array(values)) > 0)


def test_each_length_has_its_curve_and_others_take_the_nearest():
    model = fitted(lengths=(100, 400))
    assert set(model.curves) == {100, 400}
    assert [model.curve(n) for n in (90, 199, 201, 9000)] == [
        model.curves[100], model.curves[100], model.curves[400], model.curves[400],
    ]  # fmt: skip


def test_no_row_beyond_the_prefix_and_no_order_matters():
    model, run = fitted(), course(bend=0.5, bent_from=0.2)
    later = run.assign(loss=run["loss"].where(run["step"] < 50, 1e6))
    assert model.residual(later.head(50), STEPS) == model.residual(run.head(50), STEPS)


@pytest.mark.parametrize("history", broken_histories().values(), ids=broken_histories().keys())
def test_every_history_gets_an_answer(history):
    check(fitted()(history, CONTEXT))


@pytest.mark.parametrize("context", broken_contexts().values(), ids=broken_contexts().keys())
def test_every_context_gets_an_answer(context):
    check(fitted()(healthy(), context))


def check(forecast):
    assert forecast.reason
    if forecast.status == "ok":
        assert 0 <= forecast.probability <= 1
    else:
        assert math.isnan(forecast.probability)


def test_no_run_is_one_sentence():
    with pytest.raises(ValueError, match="must be that of healthy runs, got none"):
        Collapse.fit(pd.DataFrame({"run_id": [], "steps": []}), pd.DataFrame())
