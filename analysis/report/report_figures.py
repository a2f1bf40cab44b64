"""The report's figures: which tables they draw, and the captions that say what to see."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd

from foretune.analysis.figures.palette import size_colours
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.report.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_TRACE_SIZES: Final = 3
"""Panels of traces that stay readable; the largest sizes are shown."""
MAX_FAMILIES: Final = 4
"""Panels of families that stay readable; those with the most runs are shown."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure's file beside the page, its stand-in text and its caption."""

    file: str
    alt: str
    caption: str


def draw(found: Findings, folder: Path) -> list[Drawn]:
    """Writes every figure that the data allow as a PNG file; says which."""
    drawn = []
    for makers in (_formats, _loss, _sensitivity, _signal, _traces, _critical):
        for figure, item in makers(found):
            figure.savefig(folder / item.file)
            drawn.append(item)
    return drawn


Made = Iterator[tuple["Figure", Drawn]]


# matplotlib costs half a second to import and most of `analysis` never draws, so each maker asks
# for `plots` once it knows that there is something to draw.
def _formats(found: Findings) -> Made:
    if found.formats is None:
        return
    from foretune.analysis.figures.format_figure import METRICS, quantizer_figure

    formats = found.formats
    against = {
        "size": "size, and against the bytes of the stored weights",
        "lr": "learning rate, a panel per size and qk-layernorm setting",
        "decay": "weight decay",
    }
    best = "" if formats.axis == "lr" else " Each format stands at its own best learning rate."
    item = Drawn(
        "formats.png",
        f"The {METRICS[formats.metric]} against {against[formats.axis]}; a line per format.",
        f"Number formats against {against[formats.axis]}"
        f"{f' ({formats.setting})' if formats.setting and formats.axis == 'size' else ''}. Dots "
        f"are seeds and lines join their means; lower is better.{best}",
    )
    yield quantizer_figure(formats.trials, x=formats.axis, metric=formats.metric), item


def _loss(found: Findings) -> Made:
    if not found.cells["loss"].notna().any():
        return
    from foretune.analysis.figures import plots

    item = Drawn(
        "loss.png",
        "Final validation loss against learning rate, a line per size and a panel per family.",
        "Final loss against learning rate. A curve that turns up sharply to the right of its "
        "lowest point is sensitive: the wrong learning rate costs much. Dots are runs and lines "
        "join seed means; red crosses are runs that diverged, at their loss at init.",
    )
    cells, rest = _with_most_runs(found.cells)
    figure = plots.loss_figure(cells, size_colours(_sizes(found.cells)))
    yield figure, replace(item, caption=item.caption + rest)


def _sensitivity(found: Findings) -> Made:
    if not found.sensitivity["sensitivity"].notna().any():
        return
    from foretune.analysis.figures import plots

    under_trained = "Short runs are under-trained at low learning rates, which inflates "
    if found.sensitivity["high_side"].notna().any():
        under_trained += "the left panel at small sizes; the right one leaves those rates out."
    else:
        under_trained += (
            "it at small sizes; the best learning rate is the highest of every grid, so these "
            "rates can't be left out."
        )
    item = Drawn(
        "sensitivity.png",
        "LR sensitivity against number of parameters, one line per family.",
        "How much loss a wrong learning rate costs on average. A line that rises with size warns "
        "that the next size will be harder to tune. Bands are "
        f"{found.level:.0%} intervals. {under_trained}",
    )
    table, rest = _with_most_runs(found.sensitivity.dropna(subset=["sensitivity"]))
    yield plots.sensitivity_figure(table), replace(item, caption=item.caption + rest)


def _signal(found: Findings) -> Made:
    if not found.cells["value"].notna().any():
        return
    from foretune.analysis.figures import plots

    item = Drawn(
        "signal.png",
        "Largest attention logit at the end of training against learning rate, per size.",
        "Largest attention logit over the last quarter of each run. Where larger sizes meet the "
        "red danger line at smaller learning rates, the critical learning rate falls with size. "
        "Open triangles ended early: their logits would have grown further.",
    )
    colours = size_colours(_sizes(found.cells))
    cells, rest = _with_most_runs(found.cells.dropna(subset=["value"]))
    figure = plots.signal_figure(cells, colours, signal=SIGNAL, threshold=found.threshold)
    yield figure, replace(item, caption=item.caption + rest)


def _traces(found: Findings) -> Made:
    traces = _trace_table(found)
    if traces.empty:
        return
    from foretune.analysis.figures import plots

    item = Drawn(
        "traces.png",
        "Largest attention logit over the steps, a panel per size and a line per learning rate.",
        f"Largest attention logit during training of {_label(found)} (first seed), one line per "
        "learning rate, which stands at its right end. Runs that will suffer usually meet the "
        "danger line early, before their loss shows anything.",
    )
    yield plots.trace_figure(traces, signal=SIGNAL, threshold=found.threshold), item


def _trace_table(found: Findings) -> pd.DataFrame:
    cells = found.cells[found.cells["family"] == _label(found)].dropna(subset=["value"])
    sizes = sorted(cells["size"].unique())[-MAX_TRACE_SIZES:]
    chosen = cells[cells["size"].isin(sizes) & (cells["seed"] == cells["seed"].min())]
    if chosen.empty:
        return chosen
    telemetry = found.records.telemetry[["run_id", "step", SIGNAL]].dropna()
    traces = telemetry.rename(columns={SIGNAL: "value"}).merge(chosen[["run_id", "size", "lr"]])
    return traces[traces["value"] > 0]


def _critical(found: Findings) -> Made:
    if found.law.posterior is None:
        return
    from foretune.analysis.figures import plots

    item = Drawn(
        "critical_lr.png",
        "Critical learning rate against number of parameters, with the fitted law and interval.",
        f"Critical learning rate of {_label(found)}. The dashed line and its band are the forecast "
        "for sizes that were not run; the band widens with distance. Where circles and squares "
        "agree, logits at the danger line mean a loss that suffers. A red star is what was "
        "measured afterwards.",
    )
    own = found.critical[found.critical["family"] == _label(found)]
    checks = [
        plots.Measured(p.n_params, p.critical_lr, p.low, p.high, v.measured)
        for p, v in found.checks
    ]
    colours = size_colours(_sizes(found.cells))
    figure = plots.critical_figure(own, found.law, colours, level=found.level, checks=checks)
    yield figure, item


def _with_most_runs(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of the families with the most rows, and a sentence on those left out."""
    names = table["family"].value_counts()
    if len(names) <= MAX_FAMILIES:
        return table, ""
    rest = f" {len(names) - MAX_FAMILIES} families with fewer runs are only in the tables."
    return table[table["family"].isin(names.index[:MAX_FAMILIES])], rest


def _sizes(cells: pd.DataFrame) -> list[float]:
    return [float(size) for size in cells["size"].dropna()]


def _label(found: Findings) -> str:
    return found.family.label if found.family is not None else ""
