"""A bank is several sweeps frozen: nothing is lost but digits, and nothing can change unnoticed."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic import Truth, start_sweep, write_run

from foretune.analysis import load
from foretune.analysis.records.bank import _shortened, freeze, read_bank

LOW = [Truth(lr=lr, seed=seed) for lr in (3e-3, 3e-2) for seed in (0, 1)]
HIGH = [Truth(lr=lr) for lr in (3e-2, 3e-1)]


@pytest.fixture
def parts(tmp_path):
    for name, runs in (("low", LOW), ("high", HIGH)):
        start_sweep(tmp_path / name)
        for truth in runs:
            write_run(tmp_path / name, truth)
    return {name: tmp_path / name for name in ("low", "high")}


def test_a_bank_holds_every_run_of_its_parts_once(parts, tmp_path):
    said = freeze(parts, tmp_path / "bank", command="the command")
    assert said.startswith("5 runs of 2 sweeps frozen in")
    bank = read_bank(tmp_path / "bank")
    assert bank.trials["part"].tolist() == ["low"] * 4 + ["high"]
    assert bank.facts["by_part"] == {"low": 4, "high": 1}
    assert bank.facts["command"] == "the command"
    assert not bank.telemetry.duplicated(["run_id", "step"]).any()
    low = load(parts["low"])
    pd.testing.assert_frame_equal(bank.trials.head(4).drop(columns="part"), low.trials)
    mine = bank.telemetry[bank.telemetry["run_id"] == LOW[0].run_id].reset_index(drop=True)
    theirs = low.telemetry[low.telemetry["run_id"] == LOW[0].run_id].reset_index(drop=True)
    for name in ("loss", "max_attention_logit"):
        np.testing.assert_allclose(mine[name], theirs[name], rtol=2**-16)


def test_an_unfinished_run_or_a_changed_file_is_one_sentence(parts, tmp_path):
    freeze(parts, tmp_path / "bank")
    path = tmp_path / "bank" / "trials.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="must be the file that was frozen, got another content"):
        read_bank(tmp_path / "bank")
    path.unlink()
    with pytest.raises(ValueError, match=r"without trials\.parquet; foretune reproduce bank"):
        read_bank(tmp_path / "bank")
    next((parts["low"] / "runs").glob("*/outcome.json")).unlink()
    with pytest.raises(ValueError, match="got 1 without an outcome in low; give the same command"):
        freeze(parts, tmp_path / "other")


def test_what_is_no_number_stays_what_it_was():
    odd = pd.DataFrame(
        {"run_id": "a", "step": range(6), "loss": [np.nan, np.inf, -np.inf, 0.0, -1.5, 1e38]}
    )
    kept = _shortened(odd)["loss"].to_numpy()
    assert np.isnan(kept[0])
    assert kept[1:5].tolist() == [np.inf, -np.inf, 0.0, -1.5]
    assert kept[5] == pytest.approx(1e38, rel=2**-16)


def test_hashes_are_those_of_the_files(parts, tmp_path):
    freeze(parts, tmp_path / "bank")
    first = json.loads((tmp_path / "bank" / "bank.json").read_text())["sha256"]
    freeze(parts, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "bank.json").read_text())["sha256"] == first
