"""Figures 9, 11, C.1 and E.1: planted powers are recovered, and absent columns cannot tell."""

import dataclasses

import numpy as np
import pytest
from planted import STEPS, by_name, decades, log_n, noise, records

from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.gradients.blocks import block_outputs
from foretune.analysis.wortsman.gradients.gradients import gradient_scale
from foretune.analysis.wortsman.logits.alignment import logit_growth
from foretune.analysis.wortsman.logits.logit_law import logit_law

HOLDS, FAILS, CANNOT_TELL = Verdict

SIZES = (16, 32, 64, 128)


def logit(run, steps, *, growth=0.75):
    """Meets 100 at log10 learning rate -1 - growth / 1.5 log10 N, from a tenth of the steps on."""
    end = 10 ** (2 + 1.5 * (decades(run) - 1) + growth * log_n(run) + noise(run, 0.04))
    share = np.minimum(1.0, steps / (0.1 * STEPS))
    return 3.0 ** (1 - share) * end**share


@pytest.fixture(scope="module")
def logits():
    return {"sweep": records(widths=SIZES, columns={"max_attention_logit_layer0": logit})}


def test_figure_9_forecasts_the_size_that_was_held_out(logits):
    answer = logit_law(logits, at_shares=(0.1, 1.0))
    falls, critical, forecast = by_name(answer).values()
    assert falls.verdict is HOLDS
    assert falls.numbers["slope"] == pytest.approx(-0.5, abs=0.05)
    assert critical.verdict is HOLDS
    assert abs(critical.numbers["error_dex"]) < 0.06
    assert forecast.verdict is HOLDS
    assert forecast.numbers["error_dex"] < 0.1
    assert "a parabola in log N" in forecast.sentence
    assert list(answer.table["at_share"]) == [0.1, 1.0]


def test_figure_9_says_so_where_logits_do_not_grow_with_n():
    def flat(run, steps):
        return logit(run, steps, growth=0.0)

    made = {"sweep": records(widths=SIZES, columns={"max_attention_logit_layer0": flat})}
    falls = logit_law(made, at_shares=()).claims[0]
    assert falls.verdict is CANNOT_TELL
    assert abs(falls.numbers["slope"]) < 0.1


def test_figure_9_with_three_sizes_takes_lines_and_with_one_none(logits):
    def only(widths):
        trials = logits["sweep"].trials
        kept = trials[trials["size"].isin(widths)]
        return {"sweep": dataclasses.replace(logits["sweep"], trials=kept)}

    three = logit_law(only((16, 32, 64)), at_shares=())
    assert three.table["form"].tolist() == ["per-lr-linear"]
    assert three.claims[0].verdict is HOLDS
    one = by_name(logit_law(only((16,)), at_shares=()))
    assert {claim.verdict for claim in one.values()} == {CANNOT_TELL}
    with pytest.raises(ValueError, match="at_share must be a share of the steps"):
        logit_law(logits, at_share=0.0)


def gradient(run, steps):
    return 1e-5 * 10 ** (-0.7 * decades(run) - 0.6 * log_n(run) + noise(run, 0.05)) + 0.0 * steps


def test_figure_11_recovers_both_powers_and_says_how_near_epsilon_it_is():
    columns = {"grad_rms_mlp_in_layer0": gradient, "update_rms_mlp_in_layer0": gradient}
    made = {"sweep": records([{"optimizer.epsilon": 1e-8}], columns=columns)}
    answer = gradient_scale(made)
    rate, size, near, later = by_name(answer).values()
    assert (rate.verdict, size.verdict) == (HOLDS, HOLDS)
    assert rate.numbers["value"] == pytest.approx(-0.7, abs=0.05)
    assert size.numbers["value"] == pytest.approx(-0.6, abs=0.1)
    # 1e-5 x 10^(-0.7 x 1.48 - 0.6 x 1.2) = 1.8e-7 at size 64 and learning rate 0.3.
    assert near.verdict is FAILS
    assert "times epsilon (1e-08)" in near.sentence
    assert later.verdict is HOLDS
    assert later.numbers["gradient_rms"] == pytest.approx(1.8e-7 * 16**-0.6, rel=0.5)
    assert answer.table["attenuation"].between(0.9, 1).all()


def test_figure_11_says_rises_where_gradients_rise_and_cannot_tell_without_them():
    def rising(run, steps):
        return gradient({**run, "lr": 1e-4 / run["lr"]}, steps)

    made = {"sweep": records([{"optimizer.epsilon": 1e-8}], columns={"grad_rms_mlp_in": rising})}
    answer = gradient_scale(made)
    assert answer.claims[0].verdict is FAILS
    assert "mlp_in of all blocks" in answer.claims[0].sentence
    none = by_name(gradient_scale(made, kind="qkv"))
    assert {claim.verdict for claim in none.values()} == {CANNOT_TELL}


def test_figure_c1_recovers_growth_with_rate_and_depth_and_none_with_n():
    def output(layer):
        return lambda run, steps: (
            3.0 * (1 + layer) ** 0.5 * 10 ** (0.3 * decades(run) + noise(run, 0.03)) + 0.0 * steps
        )

    columns = {f"output_norm_rms_layer{layer}": output(layer) for layer in range(3)}
    answer = block_outputs({"sweep": records(columns=columns)})
    n, rate, depth = by_name(answer).values()
    assert (n.verdict, rate.verdict, depth.verdict) == (HOLDS, HOLDS, HOLDS)
    assert rate.numbers["value"] == pytest.approx(0.3, abs=0.03)
    assert depth.numbers["value"] == pytest.approx(0.5, abs=0.03)
    assert len(answer.table) == 3 * 5 * 3
    none = by_name(block_outputs({"sweep": records()}))
    assert {claim.verdict for claim in none.values()} == {CANNOT_TELL}


def grown(of_norms, of_cosine):
    def norm(run, steps):
        return 10 ** (of_norms / 2 * decades(run) + noise(run, 0.02)) + 0.0 * steps

    def cosine(run, steps):
        return -0.1 * 10 ** (of_cosine * decades(run)) + 0.0 * steps

    def logit(run, steps):
        return 4 * norm(run, steps) ** 2 * np.abs(cosine(run, steps))

    columns = {"q_rms_layer0": norm, "k_rms_layer0": norm, "qk_cosine_layer0": cosine}
    return {"sweep": records(columns=columns | {"max_attention_logit_layer0": logit})}


def test_figure_e1_tells_norms_from_alignment():
    norms, against = by_name(logit_growth(grown(0.8, 0.1))).values()
    assert (norms.verdict, against.verdict) == (HOLDS, HOLDS)
    assert norms.numbers["value"] == pytest.approx(0.8, abs=0.03)
    assert against.numbers["value"] == pytest.approx(0.7, abs=0.03)
    assert "norms make 89%, the cosine 11%" in norms.sentence
    _, aligned = logit_growth(grown(0.1, 0.5)).claims
    assert aligned.verdict is FAILS
    none = by_name(logit_growth({"sweep": records()}))
    assert {claim.verdict for claim in none.values()} == {CANNOT_TELL}
    assert "q_rms_layer0" in next(iter(none.values())).sentence
