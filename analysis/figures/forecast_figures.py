"""Figures of how good forecasts inside a run are, from result tables only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from foretune.analysis.laws.critical_law import CriticalLaw

WIDTH, HEIGHT = 6.4, 4.4
"""Of a figure, inches."""


@dataclass(frozen=True, slots=True)
class HeldOutLaw:
    """A law of a critical learning rate beside what happened at sizes that it never saw."""

    name: str
    law: CriticalLaw
    fitted: pd.DataFrame
    """`n_params`, `critical_lr` of the sizes it was fitted on."""
    measured: pd.DataFrame
    """The same of the sizes held out."""


def held_out_figure(laws: Sequence[HeldOutLaw], *, level: float = 0.9) -> Figure:
    """Every law with its interval over size, fitted points as dots, held-out ones as stars."""
    figure = Figure(figsize=(WIDTH * 1.1, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for number, part in enumerate(laws):
        colour = f"C{number}"
        ends = part.fitted["n_params"].min(), part.measured["n_params"].max()
        sizes = np.geomspace(*ends, 60)
        found = [part.law.predict(size, level) for size in sizes]
        axes.plot(sizes, [f.median for f in found], color=colour, label=part.name)
        low, high = [f.low for f in found], [f.high for f in found]
        axes.fill_between(sizes, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(part.fitted["n_params"], part.fitted["critical_lr"], "o", color=colour, ms=4)
        style = {"ms": 13, "mec": "white", "color": colour}
        axes.plot(part.measured["n_params"], part.measured["critical_lr"], "*", **style)
    axes.plot([], [], "ok", ms=4, label="fitted")
    axes.plot([], [], "*k", ms=11, mec="white", label="measured, not fitted")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="parameters without embedding and head",
        ylabel="critical learning rate",
    )
    axes.legend(frameon=False, fontsize="small")
    return figure


def reliability_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often runs ended unstable against the probability that was given for it.

    tables are those of `scoring.reliability`, by the name of the runs.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, table in tables.items():
        low = table["observed"] - table["low"]
        high = table["high"] - table["observed"]
        axes.errorbar(
            table["predicted"],
            table["observed"],
            yerr=np.clip(np.stack([low, high]), 0, None),
            fmt="o-",
            capsize=2,
            label=f"{name} ({int(table['n'].sum())} runs)",
        )
    axes.set(xlabel="forecast probability", ylabel="share that ended unstable")
    axes.legend(frameon=False, loc="upper left")
    return figure


def stop_figure(curves: Mapping[str, pd.DataFrame], *, bound: float) -> Figure:
    """Steps of unstable runs saved against healthy runs stopped, a line per predictor.

    curves are those of `stop_curve`; bound is drawn as the rate that is allowed.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        ordered = curve.sort_values("false_stops")
        axes.step(
            ordered["false_stops"],
            ordered["saved"].cummax(),
            where="post",
            linewidth=2.4 if number == 0 else 1.2,
            color="black" if number == 0 else f"C{number - 1}",
            label=name,
        )
    axes.axvline(bound, color="0.6", linestyle=":", linewidth=1)
    axes.set(
        xlabel="share of healthy runs stopped",
        ylabel="share of unstable runs' steps saved",
        xlim=(-0.005, 0.5),
        ylim=(0, 1),
    )
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def lead_figure(runs: pd.DataFrame) -> Figure:
    """Where in its run each unstable run was stopped, by split; those never stopped at 1.

    runs has `stop_step`, `total_steps`, `unstable` and `split`.
    """
    unstable = runs[runs["unstable"].astype(bool)]
    share = (unstable["stop_step"] / unstable["total_steps"]).fillna(1.0).clip(1e-3, 1)
    names = [*dict.fromkeys(unstable["split"])]
    figure = Figure(figsize=(WIDTH, 0.42 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        x = share[unstable["split"] == name]
        axes.plot(x, row + rng.uniform(-0.25, 0.25, len(x)), "o", markersize=3, alpha=0.6)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="share of its steps at which an unstable run was stopped (1: never)")
    return figure
