"""Figures of curves find what was planted, its sign, and nothing where nothing was."""

import dataclasses

import numpy as np
import pytest
from planted import RATES, by_name, decades, log_n, noise, records

from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.curves.curves import curves
from foretune.analysis.wortsman.curves.loss_curves import loss_curves
from foretune.analysis.wortsman.curves.questions import Compare, Trend, TrendDifference
from foretune.analysis.wortsman.runs import gather
from foretune.tuner.reproduce.catalog import FIGURES
from foretune.tuner.reproduce.wortsman.judges import CurveJudge

HOLDS, FAILS, CANNOT_TELL = Verdict

FIXED, BARE = {"model.qk_norm": True}, {"model.qk_norm": False}
TWINS = {"without": BARE, "with": FIXED}
QUESTIONS = {n: f.judge.asks for n, f in FIGURES.items() if isinstance(f.judge, CurveJudge)}


def bowl(run, *, tilt=0.12, moving=0.0, sd=0.01):
    """A parabola in log learning rate around 10^(-2 + moving log N)."""
    return 2.0 + tilt * (decades(run) - moving * log_n(run)) ** 2 + noise(run, sd)


def damaged(run):
    """Without the fix, high learning rates lose 0.3 nats a decade, and more as N grows."""
    high = max(0.0, decades(run))
    return bowl(run) + (0.0 if run["model.qk_norm"] else (0.2 + 0.15 * log_n(run)) * high)


@pytest.fixture(scope="module")
def twins():
    return {"sweep": records(TWINS.values(), loss=damaged)}


def test_figure_1_is_recovered_with_its_sign(twins):
    answer = loss_curves(
        twins, TWINS, questions=QUESTIONS["fig1"], below=("sensitivity", "best_lr")
    )
    found = by_name(answer)
    lower = found["LR sensitivity, with against without"]
    assert lower.verdict is HOLDS
    # 0.2 x (0.5, 1, 1.5) / 5 and its growth with log10 N of 0, 0.6 and 1.2.
    assert lower.numbers["value"] == pytest.approx(-0.6 * (0.2 + 0.15 * 0.6), abs=0.02)
    assert lower.numbers["size 16"] > lower.numbers["size 64"]
    assert found["LR sensitivity and N, without"].verdict is HOLDS
    assert found["LR sensitivity and N, with"].verdict is CANNOT_TELL
    assert (
        found["the loss at the two highest learning rates, with against without"].verdict is HOLDS
    )
    assert "3 seeds at 3 sizes" in lower.sentence
    assert len(answer.table) == 6


def test_the_opposite_is_said_of_the_opposite(twins):
    exchanged = {"without": FIXED, "with": BARE}
    found = by_name(loss_curves(twins, exchanged, questions=QUESTIONS["fig1"]))
    worse = found["LR sensitivity, with against without"]
    assert worse.verdict is FAILS
    assert "Not here" in worse.sentence


def test_no_effect_is_no_verdict_and_is_the_same_within_the_tolerance():
    same = {"sweep": records(TWINS.values(), loss=bowl)}
    questions = [
        Compare(measure="sensitivity", expected="lower", finding="it lowers it"),
        Compare(measure="best_loss", expected="same", finding="it changes nothing"),
    ]
    lower, equal = loss_curves(same, TWINS, questions=questions).claims
    assert lower.verdict is CANNOT_TELL
    assert equal.verdict is HOLDS


def test_one_seed_has_a_wider_interval_and_a_lost_run_counts_as_the_loss_at_init():
    def lost(run):
        gone = not run["model.qk_norm"] and run["lr"] == 0.3
        return {"diverged": gone, "outcome": "diverged" if gone else "finished"}

    one = {"sweep": records(TWINS.values(), loss=bowl, seeds=(0,), changes=lost)}
    answer = loss_curves(one, TWINS, questions=QUESTIONS["fig1"])
    claim = by_name(answer)["LR sensitivity, with against without"]
    assert claim.verdict is HOLDS
    # 6 nats at init in the place of 2 + 0.12 x 1.48^2.
    assert claim.numbers["value"] == pytest.approx(-(6.0 - 2.26) / 5, abs=0.02)
    assert claim.numbers["seeds"] == 1


def test_a_nan_loss_and_a_stopped_run_are_no_number():
    def broken(run):
        bad = run["lr"] == 0.3 and run["seed"] == 0
        return {"final_val_loss": np.nan if bad else bowl(run)}

    def stopped(run):
        return {"outcome": "stopped" if run["lr"] == 0.3 else "finished"}

    for changes in (broken, stopped):
        found = {"sweep": records(TWINS.values(), loss=bowl, changes=changes)}
        by_name(loss_curves(found, TWINS, questions=QUESTIONS["fig8"], below=("best_lr",)))


def test_the_best_rate_is_refined_and_its_movement_found():
    ladders = {"moves": {"model.kind": "a"}, "still": {"model.kind": "b"}}

    def loss(run):
        return bowl(run, moving=-0.4 if run["model.kind"] == "a" else 0.0, sd=0.002)

    made = {"sweep": records(ladders.values(), loss=loss)}
    questions = [
        Trend(measure="best_lr", expected="lower", finding="it falls"),
        TrendDifference(measure="best_lr", expected="steadier", finding="it is held still"),
    ]
    answer = loss_curves(made, ladders, questions=questions)
    falls, holds_still, steadier = answer.claims
    assert falls.verdict is HOLDS
    assert falls.numbers["value"] == pytest.approx(-0.4, abs=0.05)
    assert holds_still.verdict is CANNOT_TELL
    assert steadier.verdict is HOLDS
    smallest = answer.table[(answer.table["variant"] == "moves")].iloc[-1]
    assert smallest["best_lr_refined"] == pytest.approx(10 ** (-2 - 0.4 * 1.2), rel=0.1)


def test_a_best_rate_at_the_end_of_the_grid_is_a_bound():
    made = {"sweep": records(loss=lambda run: bowl(run, moving=-1.5, sd=0.002))}
    (claim,) = loss_curves(
        made,
        {"all": {}},
        questions=[Trend(measure="best_lr", expected="lower", finding="it falls")],
    ).claims
    assert claim.verdict is HOLDS
    assert claim.numbers["value"] < -0.25


def test_the_smaller_of_two_windows_counts():
    def shifted(run):
        return bowl(run) + (3.0 if run["lr"] == 0.3 and run["model.qk_norm"] else 0.0)

    made = {"sweep": records(TWINS.values(), loss=shifted, lrs=(1e-3, *RATES))}
    windows = {"with": [(3e-3, 3e-1), (1e-3, 1e-1)], "without": [(3e-3, 3e-1)]}
    answer = loss_curves(made, TWINS, windows=windows)
    own = answer.table[answer.table["variant"] == "with"]
    assert set(own["window"]) == {"0.001 to 0.1"}
    assert own["sensitivity"].max() < 0.15
    # Both parabolas run a decade to either side of their best, or a decade and a half to one.
    assert answer.claims[0].verdict is not FAILS
    assert loss_curves(made, TWINS).claims[0].verdict is FAILS


def test_ladders_are_compared_at_equal_n_and_by_their_slopes():
    ladders = {"width": {"model.ladder": "width"}, "depth": {"model.ladder": "depth"}}

    def loss(run):
        deep = run["model.ladder"] == "depth"
        high = max(0.0, decades(run)) * log_n(run)
        return bowl(run) - 0.05 * log_n(run) * (2 if deep else 1) + 0.3 * high * deep

    made = {"sweep": records(ladders.values(), loss=loss)}
    found = by_name(loss_curves(made, ladders, questions=QUESTIONS["fig7"], below=("best_loss",)))
    assert found["LR sensitivity and N, depth against width"].verdict is HOLDS
    best = found["the best loss, depth against width, equal N"]
    assert best.verdict is CANNOT_TELL or best.verdict is HOLDS
    assert best.numbers["value"] == pytest.approx(-0.06, abs=0.02)


def ladder_records(bend, *, widths=(16, 32, 64)):
    """Losses that fall as N^-0.1 (`both`), but for `width`, which at 64 ends `bend` above that."""
    ladders = {"both": {"model.ladder": "joint"}, "width": {"model.ladder": "width"}}

    def loss(run):
        bent = run["model.ladder"] == "width" and run["width"] == 64
        law = 2.0 * 10 ** (-0.1 * log_n(run)) + bend * bent
        return law + 0.1 * abs(decades(run)) + noise(run, 0.001)

    return {"sweep": records(ladders.values(), loss=loss, widths=widths)}, ladders


@pytest.mark.parametrize(("bend", "verdict"), [(0.4, HOLDS), (-0.4, HOLDS), (0.0, CANNOT_TELL)])
def test_the_ladder_whose_largest_size_is_forecast_best_is_told(bend, verdict):
    made, ladders = ladder_records(bend)
    found = by_name(loss_curves(made, ladders, questions=QUESTIONS["figE3"]))
    claim = found["the best loss forecast, width against both"]
    assert claim.verdict is verdict
    assert claim.numbers["value"] == pytest.approx(abs(bend), abs=0.01)
    miss = float(claim.sentence.split("width ends ")[1].split()[0])
    assert miss == pytest.approx(bend, abs=0.01)


def test_a_forecast_of_the_largest_size_takes_two_smaller_ones():
    made, ladders = ladder_records(0.4, widths=(16, 64))
    found = by_name(loss_curves(made, ladders, questions=QUESTIONS["figE3"]))
    claim = found["the best loss forecast, width against both"]
    assert claim.verdict is CANNOT_TELL
    assert "width and both lack three sizes" in claim.sentence


def test_what_is_missing_cannot_be_told(twins):
    answer = loss_curves(twins, {"without": BARE, "z-loss": {"loss.z_loss": 1e-4}})
    claim, absent = answer.claims
    assert (claim.verdict, absent.verdict) == (CANNOT_TELL, CANNOT_TELL)
    assert "no run of z-loss has ended" in claim.sentence
    nothing = dataclasses.replace(twins["sweep"], trials=twins["sweep"].trials.iloc[:0])
    for name, questions in QUESTIONS.items():
        found = loss_curves({"sweep": nothing}, TWINS, questions=questions, title=name)
        assert {claim.verdict for claim in found.claims} == {CANNOT_TELL}
        by_name(found)


def test_bad_arguments_are_refused_in_a_sentence(twins):
    with pytest.raises(ValueError, match="reference must be one of without, with, got 'none'"):
        loss_curves(twins, TWINS, reference="none")
    with pytest.raises(ValueError, match=r"below must name .* got 'loss'"):
        loss_curves(twins, TWINS, below=("loss",))
    with pytest.raises(ValueError, match="records must hold one sweep or more"):
        gather({})


def test_a_run_belongs_to_the_variant_that_names_most_of_it():
    fields = [BARE, FIXED, {**FIXED, "loss.z_loss": 1e-4}]
    made = records(fields, lrs=RATES[:2], widths=(16,), seeds=(0,))
    runs = gather({"sweep": made}, {"none": {}, "norm": FIXED, "both": fields[2]})
    assert runs.trials["variant"].value_counts().to_dict() == {"none": 2, "norm": 2, "both": 2}


def test_two_depths_of_one_width_are_two_rungs():
    made = records([{"model.depth": 3}, {"model.depth": 6}], widths=(512,), seeds=(0,))
    deep = made.trials["model.depth"] == 6
    trials = made.trials.assign(n_params=made.trials["n_params"].where(~deep, 1.9e7))
    runs = gather({"sweep": dataclasses.replace(made, trials=trials)})
    assert list(runs.rungs) == ["512, N 9.4M", "512, N 19M"]
    assert len(curves(runs)) == 2
