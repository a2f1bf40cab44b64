"""Figures of traces: what grows, drifts or collapses through training, and what doesn't."""

import dataclasses

import numpy as np
import pytest
from planted import STEPS, by_name, log_n, noise, records

from foretune.analysis.stats.verdict import Verdict
from foretune.analysis.wortsman.gradients.epsilon import epsilon_traces
from foretune.analysis.wortsman.gradients.gradient_traces import gradient_traces
from foretune.analysis.wortsman.logits.attention_growth import attention_traces
from foretune.analysis.wortsman.logits.output_logits import output_logit_traces

HOLDS, FAILS, CANNOT_TELL = Verdict

TWINS = {"without": {"model.qk_norm": False}, "with": {"model.qk_norm": True}}


def logit(run, steps):
    end = 10.0 if run["model.qk_norm"] else 10.0 * 10 ** (1 + 0.5 * log_n(run))
    return end ** (0.2 + 0.8 * steps / STEPS) * 10 ** noise(run, 0.03)


def damaged(run):
    return 2.0 + (0.0 if run["model.qk_norm"] else 0.3) + noise(run, 0.02)


@pytest.fixture(scope="module")
def twins():
    columns = {"max_attention_logit_layer0": logit, "max_attention_logit": logit}
    return {"sweep": records(TWINS.values(), loss=damaged, columns=columns)}


def test_figure_2_finds_loss_and_logits_of_each_size(twins):
    answer = attention_traces(twins, TWINS)
    loss, logits = by_name(answer).values()
    assert (loss.verdict, logits.verdict) == (HOLDS, HOLDS)
    assert loss.numbers["value"] == pytest.approx(0.3, abs=0.05)
    assert logits.numbers["size 16"] == pytest.approx(0.92, abs=0.15)
    assert logits.numbers["size 64"] > logits.numbers["size 16"] + 0.3
    assert "at learning rate 0.03" in loss.sentence
    assert len(answer.figure.axes) == 4


def test_figure_2_says_the_opposite_of_the_opposite_and_nothing_without_logits(twins):
    found = by_name(attention_traces(twins, TWINS, cured="without"))
    assert {claim.verdict for claim in found.values()} == {FAILS}
    bare = twins["sweep"].telemetry[["run_id", "step", "loss"]]
    loss, logits = attention_traces(
        {"sweep": dataclasses.replace(twins["sweep"], telemetry=bare)}, TWINS
    ).claims
    assert loss.verdict is HOLDS
    assert logits.verdict is CANNOT_TELL
    with pytest.raises(ValueError, match="rungs must be among 16, 32, 64, got '48'"):
        attention_traces(twins, TWINS, rungs=[48])


OUTPUTS = {
    "neither": {"loss.z_loss": 0.0},
    "z-loss": {"loss.z_loss": 1e-4},
}


def test_figure_4_finds_drift_its_cure_and_late_divergence():
    def mean_logit(run, steps):
        return (-8.0 if run["loss.z_loss"] == 0 else 0.0) * steps / STEPS + noise(run, 0.1)

    def late(run, steps):
        rise = 0.8 if run["loss.z_loss"] == 0 else 0.0
        return 2.5 - 0.5 * np.minimum(steps, 60) / 60 + rise * np.maximum(steps - 80, 0) / 20

    columns = {"logits_mean": mean_logit, "logits_min": mean_logit, "loss": late}
    made = {"sweep": records(OUTPUTS.values(), columns=columns)}
    found = by_name(output_logit_traces(made, OUTPUTS))
    assert found["drift of the output logits, neither"].verdict is HOLDS
    assert found["drift of the output logits, neither"].numbers["value"] == pytest.approx(
        -6.8, abs=0.5
    )
    assert found["late divergence, neither"].verdict is HOLDS
    assert found["output logits at the end, z-loss against neither"].verdict is HOLDS
    exchanged = by_name(output_logit_traces(made, OUTPUTS, reference="z-loss"))
    assert exchanged["drift of the output logits, z-loss"].verdict is CANNOT_TELL
    assert exchanged["late divergence, z-loss"].verdict is FAILS
    assert exchanged["output logits at the end, neither against z-loss"].verdict is FAILS


def test_figure_4_without_detail_says_what_to_switch_on():
    answer = output_logit_traces({"sweep": records(OUTPUTS.values())}, OUTPUTS)
    drift, late, held = answer.claims
    assert (drift.verdict, late.verdict, held.verdict) == (
        CANNOT_TELL,
        FAILS,
        CANNOT_TELL,
    )
    assert "no run recorded logits_mean; set telemetry_detail=true" in drift.sentence
    by_name(answer)


EPSILONS = {
    name: {"optimizer.epsilon": value}
    for name, value in (("1e-15", 1e-15), ("1e-8", 1e-8), ("1e-3", 1e-3))
}


def epsilon_loss(run):
    cost = {1e-15: 0.0, 1e-8: 0.3, 1e-3: 0.9}[run["optimizer.epsilon"]]
    return 2.0 + cost * (run["lr"] > 0.2) + noise(run, 0.02)


def collapsing(run, steps):
    fall = 4.0 if run["optimizer.epsilon"] > 1e-10 else 2.0
    return 1e-3 * 10 ** (-fall * steps / STEPS)


def test_figure_12_finds_which_epsilon_is_better_at_the_highest_rate():
    made = records(EPSILONS.values(), loss=epsilon_loss, columns={"grad_rms_mlp_in": collapsing})
    answer = epsilon_traces({"sweep": made}, EPSILONS)
    found = by_name(answer)
    assert found["the final loss, epsilon 1e-15 against 1e-8"].verdict is HOLDS
    assert found["the final loss, epsilon 1e-3 against 1e-8"].verdict is HOLDS
    gradient = found["log10 of the gradient RMS at the end, epsilon 1e-15 against 1e-8"]
    assert gradient.verdict is HOLDS
    assert gradient.numbers["value"] == pytest.approx(1.9, abs=0.1)
    assert len(answer.table) == 3 * 3 * 5
    calm = epsilon_traces({"sweep": made}, EPSILONS, lr=1e-2)
    assert calm.claims[0].verdict is CANNOT_TELL
    with pytest.raises(ValueError, match=r"variants must each set optimizer\.epsilon"):
        epsilon_traces({"sweep": made}, {"1e-15": EPSILONS["1e-15"]})


def test_figure_13_compares_updates_while_gradients_are_below_epsilon():
    fields = [{"optimizer.epsilon": 1e-5}]

    def update(run, steps):
        return np.where(collapsing(run, steps) < 1e-5, 0.01, 0.3)

    columns = {
        f"{kind}_rms_mlp_in_layer{layer}": of
        for layer in range(2)
        for kind, of in (("grad", collapsing), ("update", update))
    }
    made = {"sweep": records(fields, columns=columns)}
    answer = gradient_traces(made, rungs=[16, 64], lrs=[1e-2, 0.3])
    (claim,) = answer.claims
    assert claim.verdict is HOLDS
    assert claim.numbers["value"] == pytest.approx(np.log10(0.01 / 0.3), abs=0.01)
    assert len(answer.figure.axes) == 8
    assert set(answer.table["block"]) == {"0", "1"}
    far = records([{"optimizer.epsilon": 1e-12}], columns=columns)
    (claim,) = by_name(gradient_traces({"sweep": far})).values()
    assert claim.verdict is CANNOT_TELL
    assert "the smallest stand at" in claim.sentence
    (claim,) = by_name(gradient_traces({"sweep": records()})).values()
    assert claim.verdict is CANNOT_TELL


@pytest.mark.parametrize("figure", [attention_traces, output_logit_traces])
def test_a_sweep_without_an_ended_run_is_no_error(figure, twins):
    nothing = dataclasses.replace(twins["sweep"], trials=twins["sweep"].trials.iloc[:0])
    found = by_name(figure({"sweep": nothing}, TWINS))
    assert {claim.verdict for claim in found.values()} == {CANNOT_TELL}
