import json
import math

import pytest
from synthetic import GRID, SLOPE, Truth, critical_lr, start_sweep, write_run, write_sweep

from foretune import analysis
from foretune.analysis.across_scale.prediction import predictor
from foretune.analysis.stats.verdict import Verdict

N_128 = Truth(width=128).n_params


def test_a_larger_sizes_critical_rate_is_forecast(sweep):
    found = analysis.predict(sweep, n_params=N_128, size=128)
    assert found.family == "model.qk_norm=false"
    assert found.critical_lr == pytest.approx(critical_lr(N_128), rel=0.2)
    assert found.loss_critical_lr == pytest.approx(critical_lr(N_128), rel=0.2)
    assert found.low < found.critical_lr < found.high
    assert found.slope_low < SLOPE < found.slope_high
    assert (found.lr, found.verdict, found.probability) == (None, None, None)
    assert "head dim 16" in found.horizon
    assert "147,456" in found.horizon
    assert "prior: slope -0.5" in found.prior


@pytest.mark.parametrize(
    ("lr", "verdict"), [(1e-3, "stable"), (7e-3, "cannot tell"), (1e-1, "unstable")]
)
def test_the_verdict_on_a_learning_rate(sweep, lr, verdict):
    found = analysis.predict(sweep, n_params=N_128, lr=lr)
    assert found.verdict == verdict
    assert found.probability is not None
    assert (found.probability > 0.95) == (verdict == "unstable")
    assert (found.probability < 0.05) == (verdict == "stable")
    assert f"at {lr:g} the run is unstable with probability" in found.reason


def test_a_prediction_survives_its_file(sweep, tmp_path):
    found = analysis.predict(analysis.load(sweep), n_params=N_128, size=128, lr=1e-2)
    path = tmp_path / "prediction.json"
    path.write_text(found.to_json())
    assert analysis.read_prediction(path) == found


def test_json_has_no_numbers_that_are_not_finite(sweep, tmp_path):
    found = analysis.predict(sweep, n_params=1e12, lr=1e-2)
    values = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert values["critical_lr"] is None
    assert found.verdict == "cannot tell"
    assert found.status.startswith("cannot tell")
    (tmp_path / "p.json").write_text(found.to_json())
    assert math.isnan(analysis.read_prediction(tmp_path / "p.json").critical_lr)


def test_the_cured_family_can_be_asked_for_and_cannot_tell(sweep):
    found = analysis.predict(sweep, n_params=N_128, lr=1e-2, family="model.qk_norm=true")
    assert found.verdict == "cannot tell"
    assert "crossed inside the grid at 0 sizes" in found.reason
    with pytest.raises(ValueError, match=r"family must be one of model.qk_norm=false; model"):
        analysis.predict(sweep, n_params=N_128, family="none")


def test_an_automatic_threshold_needs_runs_of_both_labels(tmp_path):
    few = write_sweep(tmp_path / "few", lrs=GRID[:3])
    found = analysis.predict(few, n_params=N_128, threshold="auto")
    assert "calibration needs 8 degraded" in found.reason
    assert math.isnan(found.threshold)
    many = write_sweep(tmp_path / "s", lrs=tuple(1e-3 * 1.8**i for i in range(11)))
    calibrated = analysis.predict(many, n_params=N_128, threshold="auto")
    assert calibrated.threshold == pytest.approx(100, rel=0.5)
    assert "the forecast's intervals take the line as known" in calibrated.horizon
    assert calibrated.critical_lr > calibrated.low > 0


def test_a_threshold_that_is_no_number_is_refused(sweep):
    with pytest.raises(ValueError, match="threshold must be a positive number or auto, got -3"):
        analysis.predict(sweep, n_params=N_128, threshold=-3)
    with pytest.raises(ValueError, match="lr must be positive and finite, got 0"):
        analysis.predict(sweep, n_params=N_128, lr=0)
    with pytest.raises(ValueError, match="n_params must be positive and finite"):
        analysis.predict(sweep, n_params=-1)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"level": 2}, r"level must be above 0 and below 1, got 2; 0\.9 gives 90 % intervals\."),
        ({"level": math.nan}, r"level must be above 0 and below 1, got nan; .*\."),
        ({"n_params": math.inf}, r"n_params must be positive and finite, got inf; .*\."),
        ({"size": 0}, r"size must be positive and finite, got 0\."),
        ({"lr": math.nan}, r"lr must be positive and finite, got nan; 1e-2 is an example\."),
        ({"threshold": 0}, r"threshold must be a positive number or auto, got 0; 100 is usual\."),
        ({"threshold": "some"}, r"threshold must be a number or auto, got 'some'\."),
    ],
)
def test_what_is_asked_is_checked_before_anything_is_read(tmp_path, wrong, sentence):
    """Not even the directory is there, so no law was fitted."""
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        analysis.predict(tmp_path / "none", **{"n_params": N_128, **wrong})


def of_kind(root, kind):
    for path in root.glob("runs/*/run.json"):
        run = json.loads(path.read_text())
        run["config"]["model"] = {"kind": kind, "width": run["config"]["model"]["width"]}
        path.write_text(json.dumps(run))
    return root


@pytest.mark.parametrize("threshold", [100, "auto"])
def test_a_model_without_attention_has_no_critical_rate_of_this_kind(tmp_path, threshold):
    root = of_kind(write_sweep(tmp_path / "s", qk_norms=(False,), logits=False), "convnet")
    found = analysis.predict(root, n_params=N_128, lr=1e-2, threshold=threshold)
    assert found.verdict == "cannot tell"
    assert found.reason == (
        "cannot tell: no run recorded max_attention_logit: a model without attention logits has "
        "no critical learning rate of this kind"
    )
    assert "danger line" not in found.horizon


def test_a_model_of_ones_own_is_told_of_taps(tmp_path):
    root = of_kind(write_sweep(tmp_path / "s", qk_norms=(False,), logits=False), "mine")
    found = analysis.predict(root, n_params=N_128)
    assert found.reason.endswith("a model of your own that has them shows them through a tap")


def test_a_law_that_falls_is_said_to_fall(sweep):
    assert "which falls as N to the power -0.49" in analysis.predict(sweep, n_params=N_128).reason


def test_a_law_that_rises_is_said_to_rise(tmp_path):
    root = start_sweep(tmp_path / "s")
    for width, dex in ((16, -0.9), (32, 0.0), (64, 0.9)):
        for lr in (3e-4, 1e-3, *GRID, 1.0):
            write_run(root, Truth(width=width, lr=lr, seed_dex=dex))
    found = analysis.predict(root, n_params=N_128)
    assert found.slope > 0
    assert "which rises as N to the power" in found.reason


def test_an_empty_sweep_cannot_tell(tmp_path):
    found = analysis.predict(start_sweep(tmp_path / "s"), n_params=1e6, lr=1e-2)
    assert found.verdict == "cannot tell"
    assert found.status.startswith("cannot tell")


def test_what_was_forecast_is_confirmed(sweep, tmp_path):
    found = analysis.predict(sweep, n_params=N_128, lr=3e-2)
    runs = write_sweep(tmp_path / "s", widths=(128,), qk_norms=(False,), seeds=(0, 1))
    check = analysis.verify(found, runs)
    assert (check.verdict, check.at_lr) == (Verdict.HOLDS, Verdict.HOLDS)
    assert check.n_seeds == 2
    assert check.ratio == pytest.approx(found.critical_lr / check.measured)
    assert check.sentence.startswith("Confirmed: at 589,824 parameters")
    assert f"{abs(check.ratio - 1):.0%} too" in check.sentence


@pytest.mark.parametrize("dex", [0.8, -0.8])
def test_what_turned_out_otherwise_is_refuted(sweep, tmp_path, dex):
    found = analysis.predict(sweep, n_params=N_128)
    runs = start_sweep(tmp_path / "s")
    for lr in (3e-4, 1e-3, *GRID):
        write_run(runs, Truth(width=128, lr=lr, seed_dex=dex))
    check = analysis.verify(found, runs)
    assert (check.verdict, check.at_lr) == (Verdict.FAILS, Verdict.CANNOT_TELL)
    assert check.sentence.startswith("Refuted")


def test_a_bound_can_refute_and_a_wide_one_cannot_tell(sweep, tmp_path):
    found = analysis.predict(sweep, n_params=N_128, lr=3e-2)
    runs = start_sweep(tmp_path / "s")
    for lr in (3e-2, 1e-1):
        write_run(runs, Truth(width=128, lr=lr))
    check = analysis.verify(found, runs)
    assert (check.verdict, check.at_lr) == (Verdict.CANNOT_TELL, Verdict.HOLDS)
    assert "it was forecast unstable and was unstable" in check.sentence
    far = start_sweep(tmp_path / "far")
    for lr in (3e-2, 1e-1):
        write_run(far, Truth(width=128, lr=lr, seed_dex=1.5))
    check = analysis.verify(found, far)
    assert (check.verdict, check.at_lr) == (Verdict.FAILS, Verdict.FAILS)
    assert "forecast unstable and was stable" in check.sentence


def test_a_check_without_the_size_cannot_tell(sweep):
    found = analysis.predict(sweep, n_params=N_128)
    check = analysis.verify(found, sweep)
    assert check.verdict is Verdict.CANNOT_TELL
    assert "holds no ended run of model.qk_norm=false at 589,824" in check.sentence


def test_a_file_that_is_no_prediction_is_refused(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="without critical_lr"):
        analysis.read_prediction(path)
    with pytest.raises(ValueError, match="must be a JSON file"):
        analysis.read_prediction(tmp_path / "none.json")


def test_runs_of_another_setting_cannot_confirm(sweep, tmp_path):
    found = analysis.predict(sweep, n_params=N_128)
    runs = write_sweep(tmp_path / "s", widths=(128,), qk_norms=(False,), steps=80)
    check = analysis.verify(found, runs)
    assert check.verdict is Verdict.CANNOT_TELL
    assert "not the setting that was forecast: steps 80 instead of 40" in check.sentence


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.HOLDS, (True, True, "confirmed")),
        (Verdict.FAILS, (False, False, "refuted")),
        (Verdict.CANNOT_TELL, (False, False, "cannot tell")),
    ],
)
@pytest.mark.parametrize("at_lr", Verdict)
def test_a_check_in_a_table_has_the_words_of_files_written_before(verdict, words, at_lr):
    nan = math.nan
    row = analysis.Verification(nan, nan, nan, 0, nan, verdict, at_lr, "").row()
    assert (row["inside_interval"], row["confirmed"], row["status"]) == words
    assert row["verdict_held"] is at_lr.column


@pytest.mark.slow
def test_laws_fitted_once_say_of_many_runs_what_predict_says_of_each(sweep):
    at = predictor(sweep)
    for cured, width, lr in (("false", 32, 1e-1), ("false", 128, 7e-3), ("true", 128, 1e-2)):
        family, n_params = f"model.qk_norm={cured}", Truth(width=width).n_params
        alone = analysis.predict(sweep, n_params=n_params, lr=lr, family=family)
        assert at(n_params, lr=lr, family=family).to_json() == alone.to_json()


def test_one_of_many_questions_that_asks_for_nothing_is_refused(sweep):
    at = predictor(sweep)
    with pytest.raises(ValueError, match=r"family must be one of model.qk_norm=false; model"):
        at(1e5, lr=1e-2, family="none")
    with pytest.raises(ValueError, match="lr must be positive and finite, got 0"):
        at(1e5, lr=0.0)
