import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from foretune.analysis.laws.critical_law import fit_critical_lr
from foretune.analysis.laws.laws import FORMS, fit
from foretune.analysis.measures.crossing import critical_lr
from foretune.analysis.stats.regression import Prior, regress, truncated

SIZES = np.array([9216.0, 36864.0, 147456.0])
LRS = np.array([3e-3, 1e-2, 3e-2])


def plane(n_params, lr):
    return 10 ** (0.6 * np.log10(n_params / 1e5) + 1.1 * np.log10(lr / 1e-2) + 1.5)


def surface(value=plane, sizes=SIZES, **columns):
    rows = [(n, lr, value(n, lr)) for n in sizes for lr in LRS]
    return pd.DataFrame(rows, columns=["n_params", "lr", "value"]).assign(**columns)


def critical_frame(rng=None, slope=-0.5, seeds=1, noise=0.0, size_noise=0.0):
    rows = []
    for n in SIZES:
        shared = rng.normal(0, size_noise) if rng is not None else 0.0
        for seed in range(seeds):
            own = rng.normal(0, noise) if rng is not None else 0.0
            rows.append((n, 0.018 * (n / 1e5) ** slope * 10 ** (shared + own), seed))
    return pd.DataFrame(rows, columns=["n_params", "critical_lr", "seed"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_recovers_a_plane(form):
    law = fit(surface(sizes=[*SIZES, 589824.0]), form=form)
    found = law.predict(2e6, 1e-2)
    assert found.median == pytest.approx(plane(2e6, 1e-2), rel=0.15)
    assert found.low < found.median < found.high
    assert found.status.startswith("ok")
    assert max(abs(residual) for residual in law.residuals) < 0.01


@pytest.mark.parametrize("form", FORMS)
def test_between_learning_rates_a_law_interpolates_and_beyond_it_cannot_tell(form):
    law = fit(surface(), form=form)
    assert law.predict(1e5, 5e-3).median == pytest.approx(plane(1e5, 5e-3), rel=0.15)
    beyond = law.predict(1e5, 1.0)
    assert math.isnan(beyond.median)
    assert beyond.status.startswith("cannot tell: learning rate 1 lies outside")


def test_intervals_widen_with_distance_and_with_level():
    law = fit(surface())
    widths = [math.log(p.high / p.low) for p in (law.predict(n, 1e-2) for n in (3e4, 6e5, 2e6))]
    assert widths == sorted(widths)
    assert law.predict(1e6, 1e-2, level=0.5).high < law.predict(1e6, 1e-2, level=0.9).high


def test_a_censored_cell_pulls_the_law_up_and_dropping_it_would_not():
    truth = surface()
    hidden = (truth["n_params"] == SIZES[-1]) & (truth["lr"] == 3e-2)
    seen = truth.assign(value=truth["value"].where(~hidden, truth["value"] * 0.2), censored=hidden)
    expected = plane(6e5, 3e-2)
    as_exact = fit(seen.assign(censored=False)).predict(6e5, 3e-2).median
    as_bound = fit(seen).predict(6e5, 3e-2).median
    assert abs(math.log(as_bound / expected)) < 0.5 * abs(math.log(as_exact / expected))
    assert "1 of them known only from below" in fit(seen).status


def test_what_cannot_be_fitted_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="form must be one of per-lr-linear"):
        fit(surface(), form="cubic")
    with pytest.raises(ValueError, match="needs at least 3 sizes, got 2"):
        fit(surface(sizes=SIZES[:2]), form="per-lr-quadratic")
    with pytest.raises(ValueError, match="got none in 9 rows"):
        fit(surface().assign(value=math.nan))
    with pytest.raises(ValueError, match="add value"):
        fit(surface().drop(columns="value"))


def test_values_that_are_not_positive_are_left_out_and_counted():
    assert "1 cells without" in fit(surface().assign(value=[0.0, *[1.0] * 8])).status


def test_the_critical_law_recovers_its_slope():
    law = fit_critical_lr(critical_frame())
    assert law.slope == pytest.approx(-0.5, abs=0.01)
    assert law.slope_low < -0.5 < law.slope_high < 0
    assert law.predict(589824).median == pytest.approx(0.018 * 5.89824**-0.5, rel=0.02)
    assert law.status == "ok: 3 crossings at 3 sizes"


def test_the_prior_gives_way_to_data():
    flat = fit_critical_lr(critical_frame(slope=0.0, seeds=5))
    assert flat.slope == pytest.approx(0.0, abs=0.05)
    assert flat.slope_high > 0


def test_more_seeds_narrow_the_interval_but_not_below_a_sizes_own_oddity():
    one, ten = (fit_critical_lr(critical_frame(seeds=seeds)) for seeds in (1, 10))
    assert ten.slope_high - ten.slope_low < one.slope_high - one.slope_low
    found = ten.predict(589824)
    assert math.log10(found.high / found.low) > 2 * 1.64 * 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "slope", "noise"), [(1, -0.5, 0.06), (3, -0.3, 0.08)])
@pytest.mark.parametrize("factor", [4, 16])
def test_forecast_intervals_cover(seeds, slope, noise, factor):
    rng = np.random.default_rng(1)
    target = factor * SIZES[-1]
    hits = 0
    for _ in range(300):
        law = fit_critical_lr(critical_frame(rng, slope, seeds, noise, 0.03))
        shift = rng.normal(0, noise) + rng.normal(0, 0.03)
        measured = 0.018 * (target / 1e5) ** slope * 10**shift
        found = law.predict(target, level=0.9)
        hits += found.low <= measured <= found.high
    assert 0.80 <= hits / 300 <= 0.98


@pytest.mark.slow
def test_forecast_intervals_cover_when_read_from_a_grid():
    rng = np.random.default_rng(2)
    grid = np.array([3e-3, 1e-2, 3e-2, 1e-1, 3e-1])

    def crossing(n_params, rates):
        critical = 0.018 * (n_params / 1e5) ** -0.5 * 10 ** rng.normal(0, 0.06)
        past = np.log10(rates / critical)
        value = 100 * 10 ** (np.where(past > 0, 2.4, 1.8) * past + rng.normal(0, 0.05, len(rates)))
        return critical_lr(pd.DataFrame({"lr": rates, "value": value}), threshold=100.0)

    hits = 0
    for _ in range(300):
        rows = [(n, crossing(n, grid).value) for n in SIZES]
        law = fit_critical_lr(pd.DataFrame(rows, columns=["n_params", "critical_lr"]))
        measured = crossing(16 * SIZES[-1], grid / 10).value
        found = law.predict(16 * SIZES[-1])
        hits += found.low <= measured <= found.high
    assert 0.80 <= hits / 300 <= 0.98


@pytest.mark.parametrize(
    ("n_params", "status"),
    [
        (SIZES[1], "ok: within"),
        (16 * SIZES[-1], "ok: 16 times above"),
        (20 * SIZES[-1], "caution: 20 times above"),
        (SIZES[0] / 2, "caution: 2 times below"),
        (65 * SIZES[-1], "cannot tell: 65 times above"),
    ],
)
def test_the_horizon_is_in_the_status(n_params, status):
    law = fit_critical_lr(critical_frame())
    found = law.predict(n_params)
    assert found.status.startswith(status)
    assert math.isnan(found.median) == status.startswith("cannot tell")
    assert math.isnan(law.probability_unstable(n_params, 1e-2)) == status.startswith("cannot")
    assert "9,216 to 147,456" in law.horizon


def test_the_probability_agrees_with_the_interval():
    law = fit_critical_lr(critical_frame())
    found = law.predict(589824, level=0.9)
    assert law.probability_unstable(589824, found.high) == pytest.approx(0.95)
    assert law.probability_unstable(589824, found.low) == pytest.approx(0.05)


def test_a_critical_rate_beyond_the_grid_enters_as_a_bound():
    frame = critical_frame().assign(low=math.nan, high=math.nan)
    # The smallest size never crossed, up to a rate above what the other two lead to expect.
    frame.loc[0, ["critical_lr", "low", "high"]] = [math.nan, 0.2, math.inf]
    bounded = fit_critical_lr(frame)
    ignored = fit_critical_lr(frame[1:])
    assert bounded.slope < ignored.slope - 0.02
    assert (bounded.n_measured, bounded.n_bounded, bounded.n_sizes) == (2, 1, 3)
    assert "1 more lie beyond the grid" in bounded.status


def test_rows_that_say_nothing_are_left_out_and_counted():
    frame = critical_frame()
    frame.loc[1, "critical_lr"] = math.nan
    assert "1 could not be told and are left out" in fit_critical_lr(frame).status


def test_one_size_is_no_law():
    law = fit_critical_lr(critical_frame()[:1])
    assert law.status.startswith("cannot tell: the critical learning rate was crossed")
    assert math.isnan(law.predict(1e6).median)
    assert law.predict(1e6).status.startswith("cannot tell")
    assert law.horizon == "no law could be fitted"


def test_without_censoring_the_posterior_is_the_textbooks():
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(50), rng.normal(size=50)], axis=1)
    y = x @ np.array([1.0, 2.0]) + rng.normal(0, 0.5, 50)
    weak = Prior((0.0, 0.0), (1e4, 1e4), noise=0.5, worth=1e-6, group_share=0.0)
    found = regress(x, y, y, np.arange(50), weak)
    least_squares, residual = np.linalg.lstsq(x, y, rcond=None)[:2]
    assert found.mean == pytest.approx(least_squares, rel=1e-5)
    assert found.noise == pytest.approx(math.sqrt(residual[0] / 50), rel=1e-5)


def test_censored_regression_recovers_what_dropping_biases():
    rng = np.random.default_rng(3)
    x = np.stack([np.ones(200), rng.uniform(-1, 1, 200)], axis=1)
    y = x @ np.array([0.0, 1.0]) + rng.normal(0, 0.5, 200)
    hidden = y > 0.5
    low, high = np.where(hidden, 0.5, y), np.where(hidden, np.inf, y)
    prior = Prior((0.0, 0.0), (10.0, 10.0), noise=0.5, worth=1.0, group_share=0.0)
    found = regress(x, low, high, np.arange(200), prior)
    dropped = regress(x[~hidden], y[~hidden], y[~hidden], np.arange((~hidden).sum()), prior)
    assert found.mean[1] == pytest.approx(1.0, abs=0.15)
    assert found.noise == pytest.approx(0.5, abs=0.08)
    assert dropped.mean[1] < 0.8


def test_the_truncated_normal_agrees_with_scipys():
    low = np.array([-1.0, 0.5, 3.0, 12.0, -np.inf, -np.inf, 1.0, -3.0])
    high = np.array([1.5, np.inf, np.inf, np.inf, 0.5, -9.0, 2.0, -2.0])
    mean, variance = truncated(np.full(8, 0.3), 2.0, low, high)
    a, b = (low - 0.3) / 2, (high - 0.3) / 2
    expected = stats.truncnorm.stats(a, b, loc=0.3, scale=2.0, moments="mv")
    assert mean == pytest.approx(expected[0], rel=1e-6)
    assert variance * 4 == pytest.approx(expected[1], rel=1e-4)


# Largest attention logit (median of the last 50 of 500 steps) of the byte language model without
# qk-layernorm, three layers, head dim 16, context 64, one seed: measured in November 2026.
MEASURED_LRS = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
MEASURED = {
    16: [5.7, 12, 15, 23, 1049, 6.8e4],
    32: [10.7, 16.4, 23.5, 178, 5840, 1.8e5],
    64: [12.9, 17.7, 49.8, 1098, 2.2e4, 7.0e5],
    128: [17.9, 32.8, 251, 3845, 1.3e5, 2.9e6],
    256: [math.nan, 87.8, 1237, 2.2e4, 2.7e5, math.nan],
}


def measured_critical_lr(width):
    frame = pd.DataFrame({"lr": MEASURED_LRS, "value": MEASURED[width]})
    return critical_lr(frame, threshold=100.0).value


def test_small_models_forecast_larger_ones_on_measured_logits():
    rows = [(36.0 * width**2, measured_critical_lr(width)) for width in (16, 32, 64)]
    law = fit_critical_lr(pd.DataFrame(rows, columns=["n_params", "critical_lr"]))
    assert law.slope == pytest.approx(-0.5, abs=0.05)
    for width in (128, 256):
        found = law.predict(36.0 * width**2)
        measured = measured_critical_lr(width)
        assert found.low < measured < found.high
        assert found.median == pytest.approx(measured, rel=0.25)
