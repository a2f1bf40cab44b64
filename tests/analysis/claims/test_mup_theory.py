"""Slopes and verdicts of a coordinate check, on tables whose exponents are known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from foretune.analysis.claims.mup_theory import (
    COLUMNS,
    FAILS,
    FITS,
    LAYERS,
    NO_CLAIM,
    fits,
    interval,
    judge,
    slopes,
    theory_of,
)
from foretune.analysis.figures.mup_figure import coordinates_figure
from foretune.analysis.stats.status import CANNOT_TELL

WIDTHS = (16, 32, 64, 128)
NAMES = ("standard", "mup-simple", "mup-intermediate", "mup-full")
OUTSIDE = ("embedding", "patch_embedding", "logits")
QUANTITIES = {"init": "rms", "update": "update", "change": "change"}


def exponent(name, layer, quantity, wrong):
    theory = theory_of(name, layer, quantity)
    between = (theory.low + theory.high) / 2 if theory else 0.3
    return between + wrong.get((name, layer, quantity), 0.0)


def table(names=NAMES, *, wrong=None, noise=0.02, seeds=3, blocks=2):
    """Coordinates as theory has them, but for exponents that are `wrong` by so much."""
    rng = np.random.default_rng(0)
    rows = []
    for name, width, seed, step, layer in product(
        names, WIDTHS, range(seeds), (0, 1, 2), set(LAYERS) - {"patch_embedding", "mlp_gate"}
    ):
        for block in (-1,) if layer in OUTSIDE else range(blocks):
            value = {
                column: (block + 2)
                * width ** exponent(name, layer, quantity, wrong or {})
                * np.exp(rng.normal(0, noise))
                for quantity, column in QUANTITIES.items()
            }
            theory = theory_of(name, layer, "init")
            if step == 0:
                value |= {"change": 0.0, "update": 0.0}
                value["rms"] *= not (theory and theory.zero)
            if layer in ("attention_logits", "block_output"):
                value["update"] = np.nan
            head = {"parametrization": name, "width": width, "seed": seed, "step": step}
            rows.append({**head, "layer": layer, "block": block, **value})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def verdicts(judged, word):
    own = judged[judged["verdict"] == word]
    return set(zip(own["parametrization"], own["layer"], own["quantity"], strict=True))


def test_what_follows_theory_is_as_theory_and_slopes_are_recovered():
    judged = judge(table())
    assert fits(judged)
    assert set(judged["verdict"]) == {FITS, NO_CLAIM}
    known = judged[judged["verdict"] == FITS].dropna(subset="slope")
    expected = [
        exponent(row["parametrization"], row["layer"], row["quantity"], {})
        for row in known.to_dict("records")
    ]
    assert known["slope"].to_numpy() == pytest.approx(np.array(expected), abs=0.03)
    assert (known["low"] < known["slope"]).all()
    assert (known["slope"] < known["high"]).all()


@pytest.mark.parametrize(
    ("layer", "quantity", "by"),
    [
        ("mlp_out", "update", 1.0),
        ("q", "update", 1.0),
        ("attention_out", "update", -0.5),
        ("embedding", "update", -1.0),
        ("embedding", "init", 0.5),
        ("v", "init", 0.5),
        ("logits", "update", 1.0),
        ("logits", "init", 0.5),
    ],
)
def test_a_missing_rule_fails_on_that_layer_alone(layer, quantity, by):
    where = ("mup-intermediate", layer, quantity)
    judged = judge(table(["mup-intermediate"], wrong={where: by}))
    assert verdicts(judged, FAILS) == {where}
    assert not fits(judged)
    follows = {("mup-intermediate", n, "change") for n in ("attention_logits", "block_output")}
    upstream = quantity == "update" and layer != "logits"
    assert verdicts(judged, CANNOT_TELL) == (follows if upstream else set())


@pytest.mark.parametrize(
    ("layer", "quantity", "by"), [("q", "update", -0.75), ("block_output", "change", -1.25)]
)
def test_standard_must_rise_and_the_others_are_judged_apart(layer, quantity, by):
    where = ("standard", layer, quantity)
    failing = verdicts(judge(table(wrong={where: by})), FAILS)
    assert where in failing
    assert {name for name, _, _ in failing} == {"standard"}


def test_queries_of_full_mup_must_be_zero_to_the_bit():
    coordinates = table(["mup-full"])
    start = (coordinates["step"] == 0) & (coordinates["layer"] == "q")
    coordinates.loc[start & (coordinates["width"] == 64), "rms"] = 1e-8
    assert verdicts(judge(coordinates), FAILS) == {("mup-full", "q", "init")}


def test_noise_cannot_tell_and_neither_can_a_single_slope():
    noisy = judge(table(["mup-simple"], noise=1.5))
    assert verdicts(noisy, CANNOT_TELL)
    single = judge(table(["mup-simple"], seeds=1, blocks=1))
    assert verdicts(single, FITS) == set()
    assert not fits(single)


def test_values_that_are_not_there_cannot_tell():
    coordinates = table(["mup-full"])
    last = (coordinates["step"] == 2) & (coordinates["layer"] == "k")
    coordinates.loc[last & (coordinates["width"] == 16), "update"] = np.nan
    coordinates.loc[(coordinates["layer"] == "v") & (coordinates["width"] == 16), "rms"] = np.inf
    assert verdicts(judge(coordinates), CANNOT_TELL) == {
        ("mup-full", "k", "update"),
        ("mup-full", "v", "init"),
    }


def test_slopes_are_one_for_each_seed_and_block():
    rows = table(["standard"], noise=0.0)
    found = slopes(rows[(rows["layer"] == "mlp_in") & (rows["step"] == 2)], "update")
    assert found == pytest.approx(np.full(3 * 2, 0.75))
    assert interval(found) == pytest.approx((0.75, 0.75, 0.75))


def test_intervals_cover_the_mean_nine_times_in_ten():
    rng = np.random.default_rng(1)
    draws = rng.normal(0.2, 0.1, size=(2000, 4))
    covered = [low <= 0.2 <= high for _, low, high in map(interval, draws)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_the_picture_has_a_panel_for_each_parametrization_and_a_line_for_each_layer():
    figure = coordinates_figure(table(["standard", "mup-full"]))
    panels = figure.get_axes()
    assert [axes.get_title() for axes in panels[:2]] == ["standard", "mup-full"]
    assert len(panels) == 4
    for axes in panels:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    names = {line.get_label() for line in panels[0].get_lines()}
    assert names == {*LAYERS, "rises as the width"} - {"patch_embedding", "mlp_gate"}
    (line,) = (line for line in panels[0].get_lines() if line.get_label() == "logits")
    values = np.asarray(line.get_ydata(), float)
    assert np.diff(np.log(values)) == pytest.approx(0.3 * np.log(2), abs=0.05)
