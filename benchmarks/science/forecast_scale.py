"""The part of `benchmarks/science/forecast.py` about sizes never run: rolling origin over the
bank's."""

import pandas as pd

from benchmarks.record import Record
from benchmarks.science.forecast_inside import Scored
from foretune.analysis.across_scale.backtest import scale_backtest
from foretune.analysis.across_scale.backtest_summary import summarise, verdicts
from foretune.analysis.across_scale.cells import loss_crossings, scored_cells, signal_crossings
from foretune.analysis.evaluation.splits import FIT_WIDTHS
from foretune.analysis.figures.forecast_figures import HeldOutLaw
from foretune.analysis.laws.axes import axis_crossings, fit_axes
from foretune.analysis.laws.critical_law import LOSS_PRIOR, PRIOR, fit_critical_lr
from foretune.analysis.measures.crossing import READ_WINDOW
from foretune.analysis.measures.excess import DEGRADED, UNSTABLE
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT

TARGETS = (96, 128, 256)
"""Widths that are predicted: none was used to choose a method or a constant."""
LINE = ATTENTION_LOGIT.value
LAW = "law"
BASELINES = ("same as before", "learning rate only")
SURFACE = "averaged"
PAPER = "per-lr-quadratic"
BOUNDS = {
    "critical LR, signal": {4.0: 0.08, 16.0: 0.12},
    "critical LR, loss 0.10": {4.0: 0.12, 16.0: 0.20},
    "critical LR, loss 0.40": {4.0: 0.12, 16.0: 0.20},
}
LOGIT_BOUNDS = {4.0: 0.10, 16.0: 0.25}
MIN_SCORE, MAX_UNSURE = 0.95, 0.15


def across_scale(record: Record, found: Scored) -> None:
    """Prints errors, coverage and calls for the families with and without qk-layernorm."""
    plain = found.trials[found.trials["part"].isin(["core", "edge", "large"])]
    for norm in (False, True):
        trials = plain[plain["model.qk_norm"].eq(norm)]
        record.say(f"\nACROSS SCALE, qk-layernorm {'on' if norm else 'off'}: {len(trials)} runs")
        table = scale_backtest(trials, found.telemetry, targets=TARGETS)
        errors, calls = summarise(table), verdicts(table)
        _say(record, errors, calls)
        if not norm:
            record.say("")
            _claim_critical(record, errors)
            _claim_logits(record, errors)
            _claim_calls(record, calls)
            _each_seed(record, trials, found)
    _axes(record, found)


def _axes(record: Record, found: Scored) -> None:
    """Prints how the signal's critical rate moves along the axes that the fitted runs varied."""
    kept = found.trials["run_id"].isin(found.of("fit")) & ~found.trials["model.qk_norm"].eq(True)
    crossings = axis_crossings(found.trials[kept], found.telemetry, threshold=LINE)
    law = fit_axes(crossings)
    record.say(
        f"\nother axes, {law.n_crossings} crossings: dex of critical learning rate per decade, and "
        f"their 90 % intervals (depth beyond what N already counts)"
    )
    record.say(law.effects().round(3).to_string())


def held_out_laws(found: Scored) -> list[HeldOutLaw]:
    """Returns the laws fitted on widths up to 64 without qk-layernorm, with the larger widths."""
    plain = found.trials[found.trials["part"].isin(["core", "edge", "large"])]
    trials = plain[plain["model.qk_norm"].eq(False)]
    cells = scored_cells(trials, found.telemetry, signal=SIGNAL, window=READ_WINDOW)
    small = cells["size"].isin(FIT_WIDTHS)
    laws = []
    for name, crossings, prior in (
        ("largest attention logit at 100", lambda c: signal_crossings(c, LINE), PRIOR),
        ("loss: a tenth of the gain lost", lambda c: loss_crossings(c, DEGRADED), LOSS_PRIOR),
        ("loss: two fifths lost (unstable)", lambda c: loss_crossings(c, UNSTABLE), LOSS_PRIOR),
    ):
        fitted, measured = crossings(cells[small]), crossings(cells[~small])
        laws.append(HeldOutLaw(name, fit_critical_lr(fitted, prior=prior), fitted, measured))
    return laws


def _say(record: Record, errors: pd.DataFrame, calls: pd.DataFrame) -> None:
    columns = ["quantity", "method", "factor", "n", "median_error", "worst_error", "inside"]
    columns += ["intervals", "interval_score", "crps"]
    record.say("errors in decades; inside k of n 90 % intervals")
    record.say(errors[columns].round(3).to_string(index=False))
    columns = ["quantity", "method", "factor", "where", "n", "cannot_tell", "precision", "recall"]
    shown = calls[calls["method"].isin([LAW, *BASELINES]) & ~calls["where"].eq("far")]
    record.say("\nunstable cells told: all, and those within a grid step of the edge")
    record.say(shown[columns].round(3).to_string(index=False))


def _each_seed(record: Record, trials: pd.DataFrame, found: Scored) -> None:
    """Prints the errors of forecasts that saw one seed's runs, against that seed's larger runs."""
    tables = [
        scale_backtest(own, found.telemetry, targets=TARGETS, forms=())
        for _, own in trials.groupby("seed")
    ]
    errors = summarise(pd.concat(tables))
    columns = ["quantity", "factor", "n", "median_error", "worst_error", "inside", "intervals"]
    record.say("\neach seed alone: fitted on its runs, held against its own larger ones")
    record.say(errors.loc[errors["method"].eq(LAW), columns].round(3).to_string(index=False))


def _row(errors: pd.DataFrame, quantity: str, method: str, factor: float) -> pd.Series | None:
    own = errors[
        errors["quantity"].eq(quantity)
        & errors["method"].eq(method)
        & errors["factor"].between(0.93 * factor, 1.07 * factor)
    ]
    return own.iloc[0] if len(own) else None


def _claim_critical(record: Record, errors: pd.DataFrame) -> None:
    for quantity, bounds in BOUNDS.items():
        for factor, bound in bounds.items():
            row = _row(errors, quantity, LAW, factor)
            if row is None:
                record.claim(f"{quantity} at {factor:g}x: nothing was measured", False)
                continue
            error = row["median_error"]
            record.claim(
                f"{quantity} at {factor:g}x N: median error {error:.3f} <= {bound} decades "
                f"({int(row['n'])} forecasts, {int(row['inside'])} of {int(row['intervals'])} "
                f"inside)",
                error <= bound,
            )


def _claim_logits(record: Record, errors: pd.DataFrame) -> None:
    quantity = "signal at a learning rate"
    for factor, bound in LOGIT_BOUNDS.items():
        ours, paper = (_row(errors, quantity, form, factor) for form in (SURFACE, PAPER))
        if ours is None or paper is None:
            record.claim(f"max attention logit at {factor:g}x N: too few sizes", False)
            continue
        error = ours["median_error"]
        record.claim(
            f"max attention logit at a fixed LR, {factor:g}x N: median error {error:.3f} <= "
            f"{bound} decades ({int(ours['n'])} runs)",
            error <= bound,
        )
        ratio = ours["crps"] / paper["crps"]
        record.claim(
            f"its CRPS is {ratio:.2f} <= 0.5 of the paper's quadratic's ({ours['crps']:.3f}, "
            f"{paper['crps']:.3f})",
            ratio <= 0.5,
        )


def _claim_calls(record: Record, calls: pd.DataFrame) -> None:
    own = calls[calls["method"].eq(LAW) & calls["where"].eq("all")]
    for quantity, rows in own.groupby("quantity"):
        hits, false, misses = (int(rows[n].sum()) for n in ("hits", "false_alarms", "misses"))
        cells = int(rows["n"].sum())
        unsure = float((rows["cannot_tell"] * rows["n"]).sum() / cells)
        precision, recall = hits / max(hits + false, 1), hits / max(hits + misses, 1)
        good = precision >= MIN_SCORE and recall >= MIN_SCORE and unsure <= MAX_UNSURE
        record.claim(
            f"{quantity}: precision {precision:.2f}, recall {recall:.2f} (>= {MIN_SCORE}), cannot "
            f"tell {unsure:.0%} (<= {MAX_UNSURE:.0%}) of {cells} cells",
            good,
        )
