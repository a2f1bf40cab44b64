"""`foretune backtest`: a finished sweep's runs as the test of both forecasts."""

from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from foretune.argument_error import Argument, ArgumentError
from foretune.tuner.cli.collect import read_records

if TYPE_CHECKING:
    import pandas as pd

METHOD = "law"
"""The method of `scale_backtest` whose rows are printed; the files hold all."""


def backtest(directory: Positional[str], /, *, share: float = 0.05) -> int:
    """Holds both forecasts against a finished sweep: inside its runs, and from small to large.

    Args:
        directory: the sweep's directory.
        share: share of each run's steps that forecasts inside it may see, 0 to 1.
    """
    if not 0 < share < 1:
        raise ArgumentError(
            Argument("share"), f" must be above 0 and below 1, got {share:g}; 0.05 is usual."
        )
    root = Path(directory)
    records = read_records(root)
    trials = records.trials[records.trials["outcome"].isin(["finished", "diverged"])]
    if trials.empty:
        raise ValueError(
            f"a backtest needs runs that ended by themselves, got none in {root}; resume the "
            f"sweep first."
        )
    out = root / "report"
    out.mkdir(exist_ok=True)
    _inside(trials, records.telemetry, share, out)
    _across(trials, records.telemetry, out)
    return 0


def _inside(trials: "pd.DataFrame", telemetry: "pd.DataFrame", share: float, out: Path) -> None:
    """Every predictor at a share of the steps, on sizes that the shipped model never saw or did."""
    from foretune.analysis.evaluation.backtest import (
        clusters_of,
        replay,
        score_table,
        with_sweep_loss,
    )
    from foretune.analysis.inside_run.predictors import PREDICTORS
    from foretune.analysis.measures.labels import UNSTABLE, label_runs

    runs = trials.assign(part="sweep").reset_index(drop=True)
    labels = label_runs(runs, telemetry)
    unstable = labels["unstable"]
    print(
        f"Inside a run: {int(unstable.sum())} of {len(runs)} runs ended unstable (learning rate "
        f"above the best, excess above {UNSTABLE:g}); forecasts from {share:.0%} of the steps."
    )
    if unstable.all() or not unstable.any():
        print("cannot tell: ranking needs runs of both kinds; widen the grid of learning rates.")
        return
    forecasts = replay(runs, with_sweep_loss(runs, telemetry), PREDICTORS, share=share)
    splits = "size " + runs.set_index("run_id")["size"].astype(int).astype(str)
    splits = splits.loc[forecasts.index]
    table = score_table(forecasts, unstable, splits, clusters_of(runs), draws=200)
    table = table.replace({"split": {"all held out": "all sizes"}})
    table.to_csv(out / "backtest_inside.csv", index=False)
    shown = table.pivot(index="predictor", columns="split", values="auroc")
    order = [*dict.fromkeys(table["split"])]
    print("AUROC:")
    print(shown.loc[[*PREDICTORS], order].round(3).to_string())
    print(f"table: {out / 'backtest_inside.csv'}")


def _across(trials: "pd.DataFrame", telemetry: "pd.DataFrame", out: Path) -> None:
    """Laws fitted on every set of smaller sizes, held against the larger ones."""
    import pandas as pd

    from foretune.analysis.across_scale.backtest import scale_backtest
    from foretune.analysis.records.families import families

    tables = []
    for family in families(trials):
        sizes = family.trials["size"].nunique()
        if sizes < 3:
            print(
                f"\nAcross scale, {family.label}: cannot tell, a backtest needs three sizes and "
                f"the sweep has {sizes}."
            )
            continue
        table = scale_backtest(family.trials, telemetry)
        tables.append(table.assign(family=family.label))
        print(f"\nAcross scale, {family.label}: median error in decades by factor in N")
        _say_scale(table)
    if tables:
        path = out / "backtest_scale.csv"
        pd.concat(tables).to_csv(path, index=False)
        print(f"table: {path}")


def _say_scale(table: "pd.DataFrame") -> None:
    from foretune.analysis.across_scale.backtest_summary import summarise, verdicts

    errors = summarise(table)
    ours = errors[errors["method"].eq(METHOD)] if len(errors) else errors
    if ours.empty:
        print("cannot tell: no critical learning rate was crossed inside the grid at three sizes.")
        return
    columns = ["quantity", "factor", "n", "median_error", "worst_error", "inside", "intervals"]
    print(ours[columns].round(3).to_string(index=False))
    calls = verdicts(table)
    calls = calls[calls["method"].eq(METHOD) & calls["where"].eq("all")]
    columns = ["quantity", "factor", "n", "cannot_tell", "precision", "recall"]
    print(calls[columns].round(3).to_string(index=False))
