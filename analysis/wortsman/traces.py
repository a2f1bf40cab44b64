"""Telemetry through training: which runs, read over which part, drawn a line per variant."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.figures.canvas import INK, draw_legend, log_y, set_quiet, set_title
from foretune.analysis.stats.series import smoothed
from foretune.analysis.wortsman.runs import Runs
from foretune.analysis.wortsman.styles import Style, variant_styles

LAST: Final = (0.9, 1.0)
"""Shares of the steps that stand for the end of a run."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of traces; `lines` are label, style and one frame (step, value) per seed."""

    title: str
    words: str
    lines: Sequence[tuple[str, Style, Sequence[pd.DataFrame]]]
    log: bool = False
    smooth: bool = False


def chosen_rate(runs: Runs, wanted: float) -> float:
    """The learning rate nearest to `wanted`, of those that most variants ran; NaN without runs."""
    counts = runs.trials.groupby("lr")["variant"].nunique()
    if counts.empty:
        return math.nan
    shared = counts.index[counts == counts.max()].to_numpy(float)
    return float(shared[np.abs(np.log(shared / wanted)).argmin()])


def chosen_rungs(runs: Runs, wanted: Iterable[str] | None, default: Iterable[int]) -> list[str]:
    """The rungs asked for, else those at these places of the ladder; ValueError for a stranger."""
    rungs = list(runs.rungs)
    if wanted is None:
        count = len(rungs)
        places = dict.fromkeys(place % count for place in default) if count else ()
        return [rungs[place] for place in places]
    names = [f"{rung:g}" if isinstance(rung, int | float) else rung for rung in wanted]
    strangers = [rung for rung in names if rung not in rungs]
    if strangers:
        raise ValueError(
            f"rungs must be among {', '.join(rungs) or 'none, for no run has ended'}, got "
            f"{strangers[0]!r}; choose from those"
        )
    return names


def at_nearest_rate(runs: Runs, wanted: float) -> tuple[Runs, float]:
    """The runs at the rate that `chosen_rate` picks, and that rate."""
    rate = chosen_rate(runs, wanted)
    chosen = runs.trials[np.isclose(runs.trials["lr"], rate)]
    return Runs(chosen, runs.telemetry, runs.variants), rate


def traces(runs: Runs, trials: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """A column of each run over the steps: frames of step and value, without missing readings."""
    if column not in runs.telemetry:
        return []
    own = runs.telemetry[runs.telemetry["run_id"].isin(trials["run_id"])]
    own = own[["run_id", "step", column]].dropna().rename(columns={column: "value"})
    return [frame[["step", "value"]] for _, frame in own.groupby("run_id")]


def variant_lines(
    runs: Runs, variants: Sequence[str], rung: str, column: str
) -> list[tuple[str, Style, list[pd.DataFrame]]]:
    """The lines of a panel: a column of each variant at a rung."""
    styles = variant_styles(variants)
    return [(v, styles[v], traces(runs, runs.of(v, rung), column)) for v in variants]


def window_means(
    runs: Runs, trials: pd.DataFrame, column: str, window: tuple[float, float] = LAST
) -> pd.Series:
    """Each run's mean of a column between two shares of its steps, by run; NaN where it has none.

    A run that ended before is read at its last value.
    """
    ids = pd.Index(trials["run_id"].astype(str))
    if column not in runs.telemetry:
        return pd.Series(np.nan, index=ids)
    steps = trials.get("steps", trials["last_step"]).astype(float).to_numpy()
    total = pd.Series(steps, index=ids)
    total = total[~total.index.duplicated()]
    own = runs.telemetry[runs.telemetry["run_id"].isin(ids)][["run_id", "step", column]].dropna()
    share = own["step"].to_numpy(float) / total.reindex(own["run_id"]).to_numpy()
    inside = own[(share >= window[0]) & (share <= window[1])].groupby("run_id")[column].mean()
    last = (
        own.groupby("run_id")[column]
        .last()
        .where(own.assign(share=share).groupby("run_id")["share"].max() < window[0])
    )
    return inside.reindex(ids).fillna(last.reindex(ids))


def by_seed(trials: pd.DataFrame, values: pd.Series) -> pd.Series:
    """Values in the order of trials, as one number per seed."""
    numbers = pd.Series(np.asarray(values, float), index=trials["seed"].to_numpy())
    return numbers.groupby(level=0).mean().dropna()


def by_run(trials: pd.DataFrame, values: Iterable[float]) -> dict[str, float]:
    """Values in the order of trials, by run_id."""
    return dict(zip(trials["run_id"].astype(str), map(float, values), strict=True))


def by_rung(
    runs: Runs, variant: str, values: Mapping[str, float] | pd.Series
) -> dict[str, pd.Series]:
    """A number per run (by run_id) as seeds of each rung of a variant."""
    series = pd.Series(values, dtype=float)
    found = {}
    for rung in runs.rungs:
        trials = runs.of(variant, rung)
        numbers = by_seed(trials, series.reindex(trials["run_id"].astype(str)))
        if len(numbers):
            found[rung] = numbers
    return found


def differences(
    runs: Runs, variant: str, reference: str, values: Mapping[str, float] | pd.Series
) -> dict[str, np.ndarray]:
    """A number per run (by run_id) of a variant minus the reference's, of every rung and seed that
    both have."""
    left, right = (by_rung(runs, v, values) for v in (variant, reference))
    both = {rung: (left[rung] - right[rung]).dropna() for rung in left if rung in right}
    return {rung: values.to_numpy(float) for rung, values in both.items() if len(values)}


def trace_figure(
    panels: Sequence[Panel], *, across: int, title: str, share: bool = False
) -> Figure:
    """The panels row by row; a thin line per seed, a thick one for their mean.

    `share` gives the panels of a row one vertical axis.
    """
    rows = max(1, -(-len(panels) // max(1, across)))
    size = (1.4 + 3.8 * max(1, across), 0.6 + 3.0 * rows)
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = figure.subplots(rows, max(1, across), squeeze=False, sharey="row" if share else False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        set_quiet(axes)
        set_title(axes, panel.title)
        axes.set_ylabel(panel.words)
        axes.set_xlabel("step")
        for label, (ink, _, line), seeds in panel.lines:
            _draw(axes, label, (ink, line), seeds, panel)
        if panel.log and any(seeds for _, _, seeds in panel.lines):
            log_y(axes)
    draw_legend(grid.flat[0])
    return figure


def _draw(
    axes: Axes, label: str, style: tuple[str, str], seeds: Sequence[pd.DataFrame], panel: Panel
) -> None:
    shown = [f.assign(value=smoothed(f["value"].to_numpy(float))) for f in seeds]
    shown = shown if panel.smooth else list(seeds)
    ink, line = style
    for frame in shown:
        axes.plot(frame["step"], frame["value"], ls=line, color=ink, lw=0.7, alpha=0.4)
    if not shown:
        return
    joined = pd.concat(shown)
    if panel.log:
        positive = joined[joined["value"] > 0]
        mean = np.exp(np.log(positive["value"]).groupby(positive["step"]).mean())
    else:
        mean = joined.groupby("step")["value"].mean()
    axes.plot(mean.index, mean, ls=line, color=ink, lw=1.8, label=label)
