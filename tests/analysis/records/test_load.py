import json
import os

import numpy as np
import pandas as pd
import pytest
import synthetic
from synthetic import Truth, start_sweep, write_run, write_sweep

from foretune import analysis
from foretune.analysis.records.families import factors, families, twin_of
from foretune.analysis.records.schema import TELEMETRY_COLUMNS, TRIAL_COLUMNS, describe


def test_collect_and_load_give_the_same_frames(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16, 32), lrs=(1e-2, 1e-1))
    before = analysis.load(root)
    assert not (root / "trials.parquet").exists()
    collected = analysis.collect(root)
    after = analysis.load(root)
    for name in ("trials", "telemetry"):
        pd.testing.assert_frame_equal(getattr(before, name), getattr(collected, name))
        pd.testing.assert_frame_equal(getattr(collected, name), getattr(after, name))
    assert collected.sweep["search"] == "grid"
    assert collected.status == "8 runs: 8 finished"


def test_load_reads_fresh_tables_and_ignores_stale_ones(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2,))
    analysis.collect(root)
    marked = pd.read_parquet(root / "trials.parquet").assign(reason="from the table")
    marked.to_parquet(root / "trials.parquet")
    os.utime(root / "telemetry.parquet")
    assert set(analysis.load(root).trials["reason"]) == {"from the table"}
    write_run(root, Truth(width=16, lr=3e-2))
    assert len(analysis.load(root).trials) == 3


def test_a_removed_run_makes_the_tables_stale(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2, 3e-2), qk_norms=(False,))
    analysis.collect(root)
    (root / "runs" / Truth(width=16, lr=3e-2).run_id).rename(root / "aside")
    assert len(analysis.load(root).trials) == 1


def test_copied_runs_make_the_tables_stale_whatever_their_times(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16,), lrs=(1e-2,), qk_norms=(False,))
    analysis.collect(root)
    write_run(root, Truth(width=16, lr=3e-2))
    for path in (root / "runs", *root.glob("runs/*/*")):
        os.utime(path, (1, 1))
    assert len(analysis.load(root).trials) == 2


def test_trials_have_the_documented_columns_and_every_config_field(sweep):
    trials = analysis.load(sweep).trials
    assert set(TRIAL_COLUMNS) <= set(trials.columns)
    assert {"optimizer.lr", "model.qk_norm", "data.sequence_length", "steps"} <= set(trials.columns)
    first = trials.iloc[0]
    assert first["loss_at_init"] == synthetic.LOSS_AT_INIT
    assert first["objective"] == first["final_val_loss"]
    assert trials["diverged"].dtype == bool
    assert trials["run_id"].is_monotonic_increasing


def test_telemetry_is_tidy_and_sorted(sweep):
    telemetry = analysis.load(sweep).telemetry
    assert set(TELEMETRY_COLUMNS) & set(telemetry.columns) >= {"loss", "val_loss", "lr", "step"}
    ordered = telemetry.sort_values(["run_id", "step"], ignore_index=True)
    pd.testing.assert_frame_equal(telemetry, ordered)
    assert not telemetry.duplicated(["run_id", "step"]).any()


def test_every_written_column_is_described(sweep):
    records = analysis.load(sweep)
    assert all(describe(name) for name in records.telemetry.columns)
    assert describe("grad_rms_attention")
    assert describe("objective")
    assert not describe("no such column")


def test_a_torn_last_line_is_ignored(tmp_path):
    root = start_sweep(tmp_path / "s")
    folder = write_run(root, Truth(outcome=None, last_step=5))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 3.1')
    records = analysis.load(root)
    assert records.telemetry["step"].tolist() == [0, 1, 2, 3, 4]
    assert records.trials["outcome"].tolist() == ["unfinished"]
    assert "unfinished" in records.status


def test_a_run_with_a_torn_line_in_the_middle_is_left_out_and_named(tmp_path):
    root = start_sweep(tmp_path / "s")
    folder = write_run(root, Truth())
    other = write_run(root, Truth(lr=3e-2))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = lines[3][:9]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    for records in (analysis.load(root), analysis.collect(root), analysis.load(root)):
        assert records.trials["run_id"].tolist() == [other.name]
        assert set(records.telemetry["run_id"]) == {other.name}
        assert "1 damaged run left out" in records.status
        (sentence,) = records.left_out
        assert sentence.startswith(f"run {folder.name} is left out: ")
        assert "line 4 of 41; only the last line may be torn" in sentence


def test_rows_of_one_step_are_merged_and_the_newest_wins(tmp_path):
    root = start_sweep(tmp_path / "s")
    folder = write_run(root, Truth(outcome=None, last_step=3))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "val_loss": 4.5}\n{"step": 2, "loss": 9.0}\n')
    row = analysis.load(root).telemetry.iloc[-1]
    assert (row["step"], row["val_loss"], row["loss"]) == (2, 4.5, 9.0)
    assert row["max_attention_logit"] > 0


@pytest.mark.parametrize(
    ("truth", "objective"),
    [
        (Truth(outcome="diverged", last_step=15), synthetic.LOSS_AT_INIT),
        (Truth(outcome="failed", last_step=15), synthetic.LOSS_AT_INIT),
        (Truth(outcome="failed", last_step=0), np.nan),
        (Truth(outcome=None, last_step=0), np.nan),
        (Truth(outcome=None, last_step=1), synthetic.LOSS_AT_INIT),
    ],
)
def test_the_objective_without_the_writers_help(tmp_path, truth, objective):
    root = start_sweep(tmp_path / "s")
    folder = write_run(root, truth)
    path = folder / "outcome.json"
    if path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"objective": None}))
    trial = analysis.collect(root).trials.iloc[0]
    np.testing.assert_equal(trial["objective"], objective)
    assert trial["diverged"] == (truth.outcome == "diverged")


def test_a_sweep_without_runs_and_a_run_without_a_file_are_read(tmp_path):
    root = start_sweep(tmp_path / "s")
    assert analysis.collect(root).status == "no run has started yet"
    assert analysis.load(root).trials.empty
    (root / "runs" / "started").mkdir()
    write_run(root, Truth())
    assert "1 run directories hold no run.json" in analysis.load(root).status


def test_directories_that_are_no_sweep(tmp_path):
    with pytest.raises(ValueError, match="must exist"):
        analysis.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds neither"):
        analysis.load(tmp_path)
    root = start_sweep(tmp_path / "s")
    with pytest.raises(ValueError, match="the directory of one run"):
        analysis.load(write_run(root, Truth()))


def test_an_unknown_format_is_refused(tmp_path):
    root = start_sweep(tmp_path / "s")
    (root / "sweep.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="must have format 1, got 2"):
        analysis.load(root)


def test_factors_leave_out_learning_rate_seed_and_size(tmp_path):
    root = write_sweep(tmp_path / "s", widths=(16, 32), lrs=(1e-2, 1e-1), seeds=(0, 1))
    assert factors(analysis.load(root).trials) == ["model.qk_norm"]


def test_what_follows_size_or_learning_rate_is_no_factor(tmp_path):
    root = start_sweep(tmp_path / "s")
    for width in (16, 32):
        for lr in (1e-2, 1e-1):
            for z_loss in (0.0, 1e-4):
                extra = (
                    ("model.depth", width // 8),
                    ("schedule.final_lr", lr / 10),
                    ("loss.z_loss", z_loss),
                )
                write_run(root, Truth(width=width, lr=lr, extra=extra))
    assert factors(analysis.load(root).trials) == ["loss.z_loss"]


def test_a_family_finds_its_twin(tmp_path):
    root = start_sweep(tmp_path / "s")
    for norm in (False, True):
        for z_loss in (0.0, 1e-4):
            write_run(root, Truth(qk_norm=norm, extra=(("loss.z_loss", z_loss),)))
    every = list(families(analysis.load(root).trials))
    bare = next(f for f in every if f.label == "loss.z_loss=0.0001, model.qk_norm=false")
    twin = twin_of(bare, every, "max_attention_logit")
    assert twin is not None
    assert twin.label == "loss.z_loss=0.0001, model.qk_norm=true"
    assert twin_of(twin, every, "max_attention_logit") is None


def test_mixed_and_empty_config_values_survive_parquet(tmp_path):
    root = start_sweep(tmp_path / "s")
    write_run(root, Truth(lr=1e-2, extra=(("micro_batch_size", 4), ("model.note", "a"))))
    write_run(root, Truth(lr=3e-2, extra=(("model.note", 3), ("model.heads", [1, 2]))))
    trials = analysis.collect(root).trials
    assert trials["micro_batch_size"].dropna().tolist() == [4.0]
    assert set(trials["model.note"]) == {"a", "3"}
    assert "[1, 2]" in set(trials["model.heads"].dropna())
    assert trials["data.path"].isna().all()
