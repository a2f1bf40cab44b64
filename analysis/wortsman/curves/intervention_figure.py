"""The figure of interventions: what each changes in LR sensitivity and in best loss."""

from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from foretune.analysis.figures.canvas import INK, set_quiet, set_title
from foretune.analysis.figures.palette import FAMILY_INKS

PANELS: Final = {"d_sensitivity": "LR sensitivity", "d_best_loss": "best loss"}
"""Differences to the baseline, nats."""
INKS: Final = {"lower": FAMILY_INKS[3], "higher": FAMILY_INKS[0], "no clear difference": "#777777"}
"""By what an intervention does to LR sensitivity."""


def intervention_figure(table: pd.DataFrame, baseline: str) -> Figure:
    """One row per intervention with its intervals, the least sensitive at the top."""
    height = 1.4 + 0.22 * max(6, len(table))
    figure = Figure(figsize=(10.5, height), layout="constrained", dpi=130)
    panels = list(figure.subplots(1, 2, sharey=True))
    for axes, (column, words) in zip(panels, PANELS.items(), strict=True):
        set_quiet(axes)
        axes.set_xlabel(f"{words}, difference to {baseline} (nats)")
        set_title(axes, words)
        axes.axvline(0, color=INK, ls="--", lw=1)
        if len(table):
            _bars(axes, table, column)
    if len(table):
        rows = list(range(len(table)))
        panels[0].set_yticks(rows, [_label(row) for _, row in table.iterrows()], fontsize=8)
        panels[0].set_ylim(len(table) - 0.5, -0.5)
    for verdict, ink in INKS.items():
        panels[1].plot([], [], "o", ms=5, color=ink, label=f"sensitivity {verdict}")
    panels[1].plot([], [], "--", color=INK, label=f"baseline: {baseline}")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    return figure


def _bars(axes: Axes, table: pd.DataFrame, column: str) -> None:
    for place, (_, row) in enumerate(table.iterrows()):
        if row["baseline"]:
            axes.plot([0], [place], "D", ms=5, color=INK)
            continue
        ink, marker = INKS[str(row["verdict"])], "o" if row["comparable"] else "x"
        axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [place] * 2, color=ink, lw=1.6)
        axes.plot([row[column]], [place], marker, ms=5, color=ink)


def _label(row: pd.Series) -> str:
    return f"{row['intervention']}{'' if row['comparable'] else ' (other scale of rates)'}"
