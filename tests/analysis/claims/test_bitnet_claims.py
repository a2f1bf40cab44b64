"""Claims about 1.58-bit weights follow the data: they say the opposite if the data do."""

import numpy as np
import pandas as pd
import pytest
from planted import FORMATS

from foretune.analysis.claims.bitnet_claims import (
    decay_claims,
    lr_claims,
    mean_or_median,
    needed_width,
    needed_width_claims,
    sensitivity_by_quantizer,
    width_claims,
)
from foretune.analysis.figures.format_figure import quantizer_figure
from foretune.analysis.stats.verdict import Verdict

HOLDS, FAILS, CANNOT_TELL = Verdict


def trials(loss, *, sizes=(32, 64), lrs=(3e-3, 1e-2, 3e-2), decays=(1e-4,), seeds=3):
    """Trials whose loss is `loss(quantizer, size, lr, decay)` plus what a seed adds to all."""
    rows = []
    for quantizer, (format_, scale, norm) in FORMATS.items():
        for size in sizes:
            for lr in lrs:
                for decay in decays:
                    for seed in range(seeds):
                        jitter = 0.002 * np.sin(37 * seed + 11 * size + len(quantizer))
                        value = loss(quantizer, size, lr, decay) + 0.05 * seed + jitter
                        rows.append(
                            {
                                "quantization.format": format_,
                                "quantization.scale": scale,
                                "quantization.norm": norm,
                                "size": size,
                                "n_params": 12.0 * size**2,
                                "weight_bytes": size**2 * (4.0 if format_ == "none" else 1.0),
                                "optimizer.lr": lr,
                                "optimizer.weight_decay": decay,
                                "seed": seed,
                                "objective": value,
                                "final_val_loss": value,
                                "loss_at_init": 5.5,
                                "diverged": False,
                                "outcome": "finished",
                            }
                        )
    return pd.DataFrame(rows)


def lm(quantizer, size, lr, decay, *, gap=0.1):
    """Loss falls with the logarithm of the width; ternary costs `gap`; LR 1e-2 is best."""
    ternary = gap if quantizer.startswith("ternary") else 0.0
    return 3 - 0.15 * np.log2(size / 32) + ternary + 0.2 * abs(np.log10(lr) + 2)


def verdicts(claims, name):
    return {claim.verdict for claim in claims if claim.name == name}


def test_twice_the_width_matches_where_the_data_say_so_and_not_where_they_do_not():
    near = width_claims(trials(lm))
    assert verdicts(near, "equal width and parameters") == {FAILS}
    assert verdicts(near, "doubled width") == {HOLDS}
    assert verdicts(near, "the norms alone") == {HOLDS}
    far = width_claims(trials(lambda *a: lm(*a, gap=0.5)))
    assert verdicts(far, "doubled width") == {FAILS}
    assert "worse" in next(c.sentence for c in far if c.name == "doubled width")


def test_median_and_mean_are_compared_at_every_size():
    def better_median(quantizer, *rest):
        return lm(quantizer, *rest) - 0.05 * ("median" in quantizer)

    claims = mean_or_median(trials(better_median))
    assert [claim.verdict for claim in claims] == [HOLDS, HOLDS]
    assert all("better" in claim.sentence for claim in claims)


def test_needed_width_recovers_a_known_factor():
    # 0.15 nats an octave, 0.1 nats to make good: 2^(0.1 / 0.15).
    table = needed_width(trials(lm, sizes=(16, 32, 64, 128)))
    assert set(table["size"]) == {16, 32, 64}  # Nothing is wide enough for 128.
    assert table["factor"].to_numpy() == pytest.approx(2 ** (2 / 3), rel=0.02)
    assert {claim.verdict for claim in needed_width_claims(trials(lm, sizes=(16, 32, 64)))} == {
        HOLDS
    }


def test_sensitivity_to_the_learning_rate_is_told_by_quantizer():
    def flat_ternary(quantizer, size, lr, decay):
        steep = 0.05 if quantizer.startswith("ternary") else 1.0
        return 3 + steep * abs(np.log10(lr) + 2)

    table = sensitivity_by_quantizer(trials(flat_ternary)).set_index(["quantizer", "size"])
    assert table.loc[("full precision", 32), "sensitivity"] == pytest.approx(0.33, abs=0.02)
    assert {claim.verdict for claim in lr_claims(trials(flat_ternary))} == {HOLDS}
    assert {claim.verdict for claim in lr_claims(trials(lm))} == {CANNOT_TELL}


def test_decay_is_judged_by_its_spread_and_none_is_among_the_decays():
    def robust(quantizer, size, lr, decay):
        harm = 0.1 if quantizer.startswith("ternary") else 1.0
        return lm(quantizer, size, lr, decay) + harm * 10 * decay

    frame = trials(robust, sizes=(32,), decays=(0.0, 1e-4, 1e-2))
    claims = decay_claims(frame)
    assert verdicts(claims, "less sensitive to decay") == {HOLDS}
    assert all("best decay 0 " in c.sentence for c in claims if c.name == "best decay")


@pytest.mark.parametrize(("x", "panels"), [("size", 2), ("lr", 2), ("decay", 1)])
def test_every_quantizer_is_a_line_of_the_figure(x, panels):
    figure = quantizer_figure(trials(lm, decays=(0.0, 1e-4)), x=x)
    assert len(figure.axes) == panels
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == set(FORMATS)


def test_records_without_bytes_have_no_panel_of_them():
    figure = quantizer_figure(trials(lm).assign(weight_bytes=np.nan), x="size")
    assert [axes.get_xlabel() for axes in figure.axes] == ["size"]


def test_one_seed_cannot_tell_of_decay_or_width():
    one = trials(lm, sizes=(16, 32, 64), decays=(0.0, 1e-4), seeds=1)
    assert {claim.name for claim in decay_claims(one)} == {"best decay"}
    assert {claim.verdict for claim in needed_width_claims(one)} == {CANNOT_TELL}
    assert all("one seed" in claim.sentence for claim in needed_width_claims(one))


def test_decay_is_judged_at_the_quantile_of_its_seeds():
    """Two seeds that differ by 0.004: t = 6.31 with one degree of freedom, not 2.92 with two."""

    def by_seed(seeds):
        frame = trials(lambda *a: 3.0, sizes=(32,), decays=(0.0, 1e-4), seeds=seeds)
        hurt = (frame["quantization.format"] == "ternary") & (frame["optimizer.weight_decay"] > 0)
        frame["objective"] = 3.0 + hurt * (0.01 + 0.004 * frame["seed"])
        return [c for c in decay_claims(frame) if c.name == "less sensitive to decay"]

    assert {claim.verdict for claim in by_seed(2)} == {CANNOT_TELL}
    assert {claim.verdict for claim in by_seed(3)} == {FAILS}


def test_without_full_precision_nothing_is_compared_with_it():
    frame = trials(lm, decays=(0.0, 1e-4))
    frame = frame[frame["quantization.format"] == "ternary"]
    assert lr_claims(frame) == []
    assert {claim.name for claim in decay_claims(frame)} == {"best decay"}
