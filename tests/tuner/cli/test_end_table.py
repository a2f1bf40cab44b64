"""The table at a sweep's end: names instead of fields, words instead of NaN."""

from itertools import product

import numpy as np
import pandas as pd

from foretune.tuner.cli.end_table import end_table
from foretune.tuner.config.quantizers import QUANTIZERS


def trials(quantizers=("none",), *, lrs=(0.01, 0.1, 1.0), sizes=(16, 32), **fields):
    """A trials table with the columns that a sweep leaves; losses rise away from LR 0.1."""
    rows = [
        {
            **{f"quantization.{k}": v for k, v in {**QUANTIZERS[name].fields, **fields}.items()},
            "optimizer.lr": lr,
            "seed": 0,
            "size": size,
            "n_params": 100 * size**2,
            "outcome": "finished",
            "diverged": False,
            "loss_at_init": 5.5,
            "final_val_loss": 2 + abs(np.log10(lr) + 1),
        }
        for name, size, lr in product(quantizers, sizes, lrs)
    ]
    return pd.DataFrame(rows)


def columns(text, line=1):
    return text.splitlines()[line].split()


def test_a_number_format_is_one_column_with_its_quantizer_s_name():
    for names in (
        ("none", "control", "ternary-mean", "ternary-median-bare", "int4"),
        ("control", "ternary-mean"),  # The norm is constant, so no column tells it.
        ("int4", "int8"),
    ):
        text = end_table(trials(names))
        assert "quantization." not in text
        assert columns(text)[0] == "quantizer"
        assert {line.split()[0] for line in text.splitlines()[2:]} == set(names)


def test_what_is_unlike_the_quantizer_keeps_its_column():
    text = end_table(pd.concat([trials(("ternary-mean",)), trials(("none",), start=0.25)]))
    assert columns(text)[:2] == ["quantizer", "quantization.start"]


def test_without_number_formats_there_is_no_such_column():
    assert "quanti" not in end_table(trials())
    records = trials()
    old = records.drop(columns=[name for name in records if name.startswith("quantization.")])
    assert end_table(old) == end_table(records)


def test_the_reader_is_told_what_a_column_is():
    text = end_table(trials())
    assert "from the best LR up" in text
    assert "high_side" not in text
    assert "nan" not in text.lower()


def test_rows_without_any_loss_are_left_out_and_the_table_says_so():
    table = trials()
    lost = table["size"] == 32
    table.loc[lost, ["final_val_loss", "loss_at_init"]] = np.nan
    table.loc[lost, "outcome"] = "failed"
    text = end_table(table)
    assert [line.split()[0] for line in text.splitlines()[2:-1]] == ["16"]
    assert text.splitlines()[-1] == "Left out: 1 row without a trial that has a loss, of size 32."
    table[["final_val_loss", "loss_at_init"]] = np.nan
    assert end_table(table) == "Left out: 2 rows without a trial that has a loss, of size 16 32."


def test_one_learning_rate_says_why_there_is_no_sensitivity():
    text = end_table(trials(lrs=(0.1,)))
    assert text.splitlines()[-1] == "-: this takes two learning rates or more."
    assert " 0.1 " in text.splitlines()[2] + " "
    assert end_table(trials(lrs=(0.01, 0.1, 1.0))).count("\n") == 3


def test_nothing_to_tell_is_nothing():
    assert end_table(trials().iloc[:0]) == ""
