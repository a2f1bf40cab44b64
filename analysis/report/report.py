"""One page about a sweep: what it shows, what it forecasts, and how far that can be trusted."""

import os
from collections.abc import Sequence
from pathlib import Path

from foretune.analysis.claims.format_summary import Formats
from foretune.analysis.measures.signal import SIGNAL
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT, PAPER_ATTENTION_LOGIT
from foretune.analysis.records.families import held_constant
from foretune.analysis.records.load import load
from foretune.analysis.report import page, tables
from foretune.analysis.report.findings import Check, Findings, find, headline, missing
from foretune.analysis.report.report_figures import Drawn, draw
from foretune.redaction import redacted
from foretune.whole_files import atomic_write


def write_report(
    directory: str | os.PathLike[str],
    *,
    checks: Sequence[Check] = (),
    level: float = 0.9,
    threshold: float = ATTENTION_LOGIT.value,
) -> Path:
    """Writes `DIR/report/index.html` with its figures and CSV files, and returns the page's path.

    `checks` pairs a prediction's JSON file with the sweep that ran its size afterwards. A partial
    sweep gives a page that says what is missing.
    """
    found = find(load(directory), checks=checks, level=level, threshold=threshold)
    return write_page(found)


def write_page(found: Findings) -> Path:
    """Writes the page of what was found in a sweep, and returns its path."""
    folder = found.records.directory / "report"
    folder.mkdir(exist_ok=True)
    drawn = draw(found, folder)
    for name, frame in tables.csv_tables(found).items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    path = folder / "index.html"
    with atomic_write(path, shared=True) as partial:
        partial.write_text(page.page(_title(found), _body(found, drawn)), encoding="utf-8")
    return path


def _title(found: Findings) -> str:
    sweep = found.records.sweep
    parts = [str(sweep[name]) for name in ("space_name", "preset") if sweep.get(name)]
    return " · ".join(["Foretune", *parts, found.records.directory.resolve().name])


def _body(found: Findings, drawn: list[Drawn]) -> list[str]:
    lacking = missing(found)
    parts = [
        page.text("h1", _title(found)),
        page.text("p", headline(found), "headline"),
        page.text("p", page.sentence(found.records.status), "soft"),
    ]
    if found.formats is not None:
        parts += _format_parts(found.formats)
    if found.claims:
        parts += [page.text("h2", "What the data say")]
        parts += [page.verdicts((claim.verdict, claim.sentence) for claim in found.claims)]
    if lacking:
        parts += [page.text("h2", "What is missing"), page.bullets(lacking)]
    parts += [page.text("h2", "Figures")] if drawn else []
    parts += [page.figure(item.file, item.alt, item.caption) for item in drawn]
    return [*parts, *_forecast_parts(found), *_table_parts(found), *_provenance(found)]


def _format_parts(found: Formats) -> list[str]:
    line = (
        "Each format stands at its own best learning rate, and seeds are compared in pairs; lower "
        "is better. A verdict is on the claim above it, and takes the whole interval."
    )
    parts = [page.text("h2", "Number formats"), page.text("p", line, "soft")]
    for name in dict.fromkeys(claim.name for claim in found.claims):
        own = ((claim.verdict, claim.sentence) for claim in found.claims if claim.name == name)
        parts += [page.text("h3", f"{name[0].upper()}{name[1:]}"), page.verdicts(own)]
    return [*parts, _table(tables.formats(found))]


def _forecast_parts(found: Findings) -> list[str]:
    parts = [page.text("h2", "Forecast and horizon")]
    if found.forecasts:
        parts.append(_table(tables.forecasts(found)))
        parts.append(page.text("p", page.sentence(found.forecasts[0].horizon), "soft"))
        parts.append(page.text("p", page.sentence(found.law.prior), "soft"))
    else:
        parts.append(page.text("p", page.sentence(found.law.status)))
    if found.checks:
        checked = ((check.verdict, check.sentence) for _, check in found.checks)
        parts.append(page.verdicts(checked))
    else:
        parts.append(page.text("p", "No forecast has been checked on this page.", "soft"))
    if found.absent:
        return parts
    line = (
        f"Danger line for {SIGNAL}: {found.threshold:g}. The default, {ATTENTION_LOGIT.value:g}: "
        f"{ATTENTION_LOGIT.evidence} ({ATTENTION_LOGIT.horizon}). Wortsman et al. saw every run "
        f"above {PAPER_ATTENTION_LOGIT:g} diverge, at their sizes and lengths."
    )
    return [*parts, page.text("p", line, "soft")]


def _table_parts(found: Findings) -> list[str]:
    shown = [tables.sensitivity(found), tables.critical(found)]
    shown += [tables.windows(found), tables.outcomes(found)]
    return [page.text("h2", "Tables"), *(_table(item) for item in shown if len(item.frame))]


def _table(item: tables.Shown) -> str:
    return page.table(item.frame, item.caption, item.file)


def _provenance(found: Findings) -> list[str]:
    sweep, trials = found.records.sweep, found.records.trials
    command = redacted(str(sweep.get("command") or "unknown: sweep.json doesn't say"))
    names = ("created", "preset", "search", "scheduler", "seed", "commit")
    pairs = [(name, str(sweep[name])) for name in names if sweep.get(name) is not None]
    for name in ("versions", "machine"):
        if isinstance(values := sweep.get(name), dict):
            pairs.append((name, ", ".join(f"{key} {value}" for key, value in values.items())))
    hashes = [name for name in trials["data_sha256"].unique() if name]
    pairs.append(("data SHA-256", ", ".join(hashes) or "unknown"))
    shared = ", ".join(f"{name} {value}" for name, value in held_constant(trials).items())
    pairs.append(("held constant", shared or "unknown"))
    seconds = trials["seconds"].sum()
    pairs.append(("time in runs", f"{seconds:,.0f} s over {len(trials)} runs"))
    return [
        page.text("h2", "How this was made"),
        page.text("pre", command),
        page.definitions(pairs),
    ]
