"""`foretune backtest` scores both forecasts on a finished sweep, or says why it can't."""

import pandas as pd
import pytest
from commands import call, refused
from synthetic import Truth, start_sweep, write_run, write_sweep

LRS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def test_both_forecasts_are_scored_and_written(tmp_path, capsys):
    root = write_sweep(
        tmp_path / "s",
        widths=(16, 32, 64),
        lrs=LRS[1:],
        seeds=(0, 1),
        noise=0.02,
        qk_norms=(False,),
    )
    code, out, err = call(capsys, f"backtest '{root}' --share 0.1")
    assert (code, err) == (0, "")
    inside = pd.read_csv(root / "report" / "backtest_inside.csv")
    pooled = inside[inside["split"] == "all sizes"].set_index("predictor")["auroc"]
    assert pooled["max_logit"] > 0.9
    assert {"foretune", "log_lr", "learning_curve"} <= set(pooled.index)
    scale = pd.read_csv(root / "report" / "backtest_scale.csv")
    own = scale[scale["method"].eq("law") & scale["quantity"].eq("critical LR, signal")]
    assert own["error"].abs().max() < 0.15
    assert "median error in decades" in out
    assert "AUROC:" in out


def test_two_sizes_or_one_kind_of_run_can_not_be_told(tmp_path, capsys):
    root = write_sweep(tmp_path / "s", widths=(16, 32), lrs=(1e-3, 3e-3), qk_norms=(False,))
    code, out, _ = call(capsys, f"backtest '{root}'")
    assert code == 0
    assert "cannot tell: ranking needs runs of both kinds; widen the grid" in out
    assert "cannot tell, a backtest needs three sizes and the sweep has 2" in out


@pytest.mark.parametrize("share", ["0", "1", "nan", "-1"])
def test_a_share_that_is_none_is_one_sentence(tmp_path, capsys, share):
    root = write_sweep(tmp_path / "s", widths=(16,))
    err = refused(capsys, f"backtest '{root}' --share {share}")
    assert err.startswith("foretune: --share must be above 0 and below 1, got")


def test_a_sweep_without_ended_runs_is_one_sentence(tmp_path, capsys):
    root = start_sweep(tmp_path / "s")
    write_run(root, Truth(outcome="stopped", last_step=10))
    assert "got none in" in refused(capsys, f"backtest '{root}'")
