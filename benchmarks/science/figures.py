"""The table of docs/reproductions.md: every claim that `foretune reproduce` judged in a folder.

    foretune reproduce fig1 fig2 ... --out DIR
    python -m benchmarks.science.figures DIR [--write]

Prints Markdown: per figure its sweeps with their numbers of runs and seeds, and each claim with its
verdict. With --write it replaces what is between the marks in docs/reproductions.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.page import DOCS, Section
from foretune import analysis
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.stats.verdict import Verdict
from foretune.tuner.reproduce.catalog import FIGURES

SECTION = Section(DOCS / "reproductions.md", "claims")


def sweep_words(directory: Path) -> str:
    """Returns a sweep's name with its numbers of runs, seeds, sizes and steps."""
    trials = analysis.load(directory).trials
    sizes = ", ".join(f"{size:g}" for size in sorted(trials["size"].dropna().unique()))
    steps = ", ".join(f"{n:,.0f}" for n in sorted(trials["steps"].unique()))
    seeds = trials["seed"].nunique()
    return (
        f"`{directory.name}` ({len(trials)} runs, {seeds} seed{'s' * (seeds > 1)}, "
        f"sizes {sizes}, {steps} steps)"
    )


def claims_of(path: Path) -> list[tuple[Verdict, str]]:
    """Returns verdict and sentence of each claim in a file."""
    table = pd.read_csv(path, keep_default_na=False)
    rows = zip(table["holds"].astype(str), table["sentence"], strict=True)
    return [(Verdict.from_column(holds), str(sentence)) for holds, sentence in rows]


def claim_files(name: str, directory: Path) -> list[Path]:
    """Returns the files of a figure's claims: its own, then those of further answers."""
    return [*directory.glob(f"{name}_claims.csv"), *sorted(directory.glob(f"{name}_*_claims.csv"))]


def figure_lines(name: str, directory: Path) -> list[str]:
    """Returns the Markdown of a figure that was judged in a folder."""
    figure = FIGURES[name]
    sweeps = [sweep_words(directory / label) for label in figure.parts["tiny"]]
    lines = [f"### `{name}`", "", f"{figure.question} From {', '.join(sweeps)}.", ""]
    if name in TABLES:
        lines += TABLES[name](directory / f"{name}.csv")
    lines += ["| verdict | claim |", "|---|---|"]
    for path in claim_files(name, directory):
        for verdict, sentence in claims_of(path):
            shown = verdict.choose(f"**{verdict}**", str(verdict), "can't tell")
            lines.append(f"| {shown} | {sentence.replace('|', chr(92) + '|')} |")
    return [*lines, ""]


def number(value: float, digits: int = 2) -> str:
    """Returns a number for a table; a dash where there is none."""
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def between(row: Any, low: str, value: str, high: str, *, sign: bool = False) -> str:
    """Returns a value with its interval."""
    shape = "+.2f" if sign else ".2f"
    if pd.isna(row[value]):
        return "-"
    return f"{row[value]:{shape}} ({row[low]:{shape}} to {row[high]:{shape}})"


def forced_logits_lines(path: Path) -> list[str]:
    """Returns the Markdown table of where forced logits begin to hurt."""
    table = pd.read_csv(path).drop_duplicates("architecture")
    lines = [
        "| architecture | kappa at the onset | largest logit there | against 100 |",
        "|---|---|---|---|",
    ]
    for row in table.to_dict("records"):
        kappa, logit = (
            f"{row[n]:.3g} ({row[f'{n}_low']:.3g} to {row[f'{n}_high']:.3g})"
            for n in ("onset_kappa", "onset_logit")
        )
        ratio = row["onset_logit"] / ATTENTION_LOGIT.value
        lines.append(f"| {row['architecture']} | {kappa} | {logit} | {ratio:.2f} |")
    return [*lines, ""]


def intervention_lines(path: Path) -> list[str]:
    """Returns the Markdown table of every intervention against the baseline."""
    lines = [
        "| intervention | LR sensitivity | change | best loss | change | largest logit | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(path, keep_default_na=True, na_values=[""]).to_dict("records"):
        logit = "-" if pd.isna(row["max_logit"]) else f"{row['max_logit']:.3g}"
        changes = [
            between(row, f"d_{n}_low", f"d_{n}", f"d_{n}_high", sign=True)
            for n in ("sensitivity", "best_loss")
        ]
        cells = (
            row["intervention"] + ("" if row["comparable"] else " *"),
            number(row["sensitivity"], 3),
            changes[0],
            number(row["best_loss"], 3),
            changes[1],
            logit,
            row["n_seeds"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, "", "\\* a learning rate means another step there: shown, not judged.", ""]


TABLES = {"fig10": forced_logits_lines, "interventions": intervention_lines}
"""What is shown of a figure's table, beside its claims."""


def summary(names: list[str], directory: Path) -> list[str]:
    """Returns the Markdown of how many claims hold in each figure."""
    lines = ["| figure | question | holds | does not hold | can't tell |", "|---|---|---|---|---|"]
    for name in names:
        found = [verdict for path in claim_files(name, directory) for verdict, _ in claims_of(path)]
        counts = " | ".join(str(found.count(verdict)) for verdict in Verdict)
        lines.append(f"| [`{name}`](#{name.lower()}) | {FIGURES[name].question} | {counts} |")
    return [*lines, ""]


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    judged = [n for n in FIGURES if (given.directory / f"{n}_claims.csv").exists()]
    lines = summary(judged, given.directory)
    for name in judged:
        lines += figure_lines(name, given.directory)
    machines = {
        json.dumps(json.loads(path.read_text())["machine"], sort_keys=True)
        for path in given.directory.glob("*/sweep.json")
    }
    lines += [f"Machine: {machine}" for machine in sorted(machines)]
    text = "\n".join(lines).rstrip() + "\n"
    if not given.write:
        print(text)
        return 0
    SECTION.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
