"""Number formats are compared at their own best learning rate, seed by seed."""

import math

import pandas as pd
import pytest

from foretune.analysis.claims.format_cells import (
    compare,
    compare_at_equal_bytes,
    quantizer_cells,
    quantizer_names,
    quantizer_table,
)
from foretune.analysis.records.families import label
from foretune.analysis.stats.verdict import Verdict

HOLDS, FAILS, CANNOT_TELL = Verdict

SEED_SHIFT = {0: 0.0, 1: 0.1, 2: -0.1}
"""Seeds move every quantizer alike, far more than quantizers differ: pairing must see through."""


def trials(losses: dict[tuple[str, str, bool, int], dict[float, float]]) -> pd.DataFrame:
    """Losses by (format, scale, norm, size) and learning rate, for three seeds."""
    rows = []
    for (format_, scale, norm, size), by_lr in losses.items():
        for lr, loss in by_lr.items():
            for seed, shift in SEED_SHIFT.items():
                rows.append(
                    {
                        "quantization.format": format_,
                        "quantization.scale": scale,
                        "quantization.norm": norm,
                        "size": size,
                        "n_params": 100 * size,
                        "weight_bytes": size * (1000 if format_ == "none" else 500),
                        "optimizer.lr": lr,
                        "seed": seed,
                        "objective": loss + shift + 0.001 * seed * (format_ != "none"),
                        "final_val_accuracy": 1 - loss / 10,
                        "diverged": False,
                        "outcome": "finished",
                    }
                )
    return pd.DataFrame(rows)


PLAIN = ("none", "mean", False)
TERNARY = ("ternary", "median", True)
FRAME = trials(
    {
        (*PLAIN, 16): {1e-3: 3.0, 1e-2: 2.5, 1e-1: 2.8},
        (*PLAIN, 32): {1e-3: 2.6, 1e-2: 2.1, 1e-1: 2.4},
        (*TERNARY, 32): {1e-3: 3.1, 1e-2: 2.6, 1e-1: 2.4},
    }
)


def test_names_tell_format_scale_and_norm():
    names = set(quantizer_names(FRAME))
    assert names == {"full precision", "ternary median + norms"}
    control = trials({("none", "mean", True, 16): {1e-2: 1.0}})
    assert set(quantizer_names(control)) == {"full precision + norms"}


def test_each_quantizer_stands_at_its_own_best_learning_rate():
    table = quantizer_table(quantizer_cells(FRAME)).set_index(["size", "quantizer"])
    assert table.loc[(32, "full precision"), "best_lr"] == 1e-2
    assert table.loc[(32, "ternary median + norms"), "best_lr"] == 1e-1
    assert table.loc[(32, "ternary median + norms"), "edge"]  # A better one may lie beyond.
    assert not table.loc[(32, "full precision"), "edge"]
    assert table.loc[(32, "full precision"), "value"] == pytest.approx(2.1)


def test_pairing_by_seed_sees_a_difference_that_the_seeds_would_hide():
    cells = quantizer_cells(FRAME)
    found = compare(cells, ("ternary median + norms", 32), ("full precision", 32))
    assert found.difference == pytest.approx(0.301)
    assert (found.better, found.n_seeds) == (FAILS, 3)
    assert 0.29 < found.low < found.difference < found.high < 0.31
    unpaired = quantizer_table(cells).set_index(["size", "quantizer"])
    assert unpaired.loc[(32, "full precision"), "high"] > 2.1 + 0.1


def test_the_verdict_turns_with_the_data():
    cells = quantizer_cells(FRAME)
    doubled = compare(cells, ("ternary median + norms", 32), ("full precision", 16))
    assert doubled.better is HOLDS
    same = compare(cells, ("full precision", 32), ("full precision", 32))
    assert (same.better, same.difference) == (CANNOT_TELL, 0.0)
    assert "no clear difference" in same.sentence  # A claim of equality may hold all the same.


def test_equal_bytes_interpolates_and_never_extrapolates():
    cells = quantizer_cells(FRAME)
    # 32 x 500 bytes are those of full precision at size 16.
    equal = compare_at_equal_bytes(cells, ("ternary median + norms", 32), "full precision")
    assert equal.difference == pytest.approx(2.4 + 0.001 - 2.5)
    assert equal.better is HOLDS
    outside = compare_at_equal_bytes(
        cells[cells["size"] == 32], ("ternary median + norms", 32), "full precision"
    )
    assert outside.better is CANNOT_TELL
    assert "lie outside" in outside.sentence


def test_diverged_runs_count_as_their_loss_at_init_or_as_all_wrong():
    frame = FRAME.assign(diverged=FRAME["optimizer.lr"] == 1e-2)
    cells = quantizer_cells(frame, metric="error")
    assert 1e-2 not in set(cells["lr"])
    assert set(cells["value"].round(6)) <= {0.28, 0.24}


def test_one_seed_cannot_tell():
    cells = quantizer_cells(FRAME[FRAME["seed"] == 0])
    found = compare(cells, ("ternary median + norms", 32), ("full precision", 32))
    assert found.better is CANNOT_TELL
    assert math.isnan(found.low)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric must be loss or error, got 'accuracy'"):
        quantizer_cells(FRAME, metric="accuracy")


def test_families_are_called_by_their_number_format():
    assert label({"quantization.format": "ternary", "quantization.norm": True}) == "ternary + norms"
    values = {
        "model.qk_norm": True,
        "quantization.format": "none",
        "quantization.norm": False,
        "quantization.scale": "mean",
    }
    assert label(values) == "full precision, model.qk_norm=true"
    assert label({"quantization.scale": "mean"}) == "quantization.scale=mean"
