"""Steps saved against healthy runs lost, on a table whose answer can be counted."""

import numpy as np
import pandas as pd
import pytest
from synthetic import write_sweep

from foretune.analysis import load
from foretune.analysis.evaluation.stop_curves import LOOKS, looks_at, saved_at, stop_curve
from foretune.analysis.figures.forecast_figures import lead_figure, reliability_figure, stop_figure
from foretune.analysis.inside_run.baselines import BASELINES
from foretune.analysis.stats.scoring import reliability

RUNS = pd.DataFrame(
    {
        "unstable": [True, True, False, False],
        "healthy": [False, False, True, True],
        "total_steps": [100, 300, 100, 100],
    },
    index=list("abcd"),
)
SCORES = pd.Series(
    {
        ("a", 0.1): 0.9, ("a", 0.5): 0.2,
        ("b", 0.1): 0.3, ("b", 0.5): 0.8,
        ("c", 0.1): 0.5, ("c", 0.5): 0.1,
        ("d", 0.1): np.nan, ("d", 0.5): 0.4,
    }
)  # fmt: skip
SCORES.index.names = ["run_id", "look"]


def test_a_run_is_stopped_at_its_first_look_past_the_threshold():
    curve = stop_curve(SCORES, RUNS).set_index("threshold")
    assert curve.loc[0.9].tolist() == [0.0, pytest.approx(0.9 * 100 / 400)]
    assert curve.loc[0.8].tolist() == [0.0, pytest.approx((0.9 * 100 + 0.5 * 300) / 400)]
    assert curve.loc[0.5, "false_stops"] == 0.5
    assert curve.loc[0.3].tolist() == [1.0, pytest.approx(0.9)]


def test_what_is_saved_at_a_rate_of_false_stops():
    curve = stop_curve(SCORES, RUNS)
    assert saved_at(curve, 0.05) == pytest.approx(0.6)
    assert saved_at(curve, 1.0) == pytest.approx(0.9)
    nothing = stop_curve(SCORES * np.nan, RUNS)
    assert nothing.empty
    assert saved_at(nothing, 0.05) == 0


def test_every_predictor_is_asked_at_every_look(tmp_path):
    records = load(write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2, 1e-1)))
    found = looks_at(records.trials, records.telemetry, BASELINES)
    assert found.shape == (len(records.trials) * len(LOOKS), len(BASELINES))
    assert found.index.names == ["run_id", "look"]
    high = found["max_logit"].unstack("look")
    assert (high[0.8] >= high[0.03]).all()


def test_figures_are_drawn_from_the_tables():
    curve = stop_curve(SCORES, RUNS)
    table = reliability(np.linspace(0, 1, 40), np.arange(40) > 20)
    runs = RUNS.assign(stop_step=[10, np.nan, np.nan, np.nan], split=["x", "y", "x", "y"])
    for figure, texts in (
        (stop_figure({"ours": curve, "theirs": curve}, bound=0.05), {"ours", "theirs"}),
        (reliability_figure({"held out": table}), {"held out (40 runs)"}),
        (lead_figure(runs), set()),
    ):
        legend = figure.axes[0].get_legend()
        shown = {text.get_text() for text in legend.get_texts()} if legend else set()
        assert texts <= shown
        assert figure.axes[0].get_xlabel()
