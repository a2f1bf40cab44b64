"""`foretune report`: writes the page, prints what it says, and hands it to MLflow."""

import sys
from collections.abc import Iterable
from pathlib import Path

from foretune import analysis
from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
from foretune.analysis.report.findings import find, headline
from foretune.analysis.report.report import write_page
from foretune.tuner.cli.end_table import end_table
from foretune.tuner.tracking.sender import sync, view_hint


def report_command(directory: Path, *, checks: Iterable[str]) -> int:
    """Writes the report of a sweep; prints its headline, the LR-sensitivity table and its path."""
    pairs = [_check(text) for text in checks]
    records = analysis.load(directory)
    found = find(records, checks=pairs, level=0.9, threshold=ATTENTION_LOGIT.value)
    page = write_page(found)
    print(headline(found))
    table = end_table(records.trials)
    print(f"\n{table}\n\nreport: {page}" if table else f"\nreport: {page}")
    if (directory / "mlflow.json").exists():
        message = sync(directory, artifacts=(page.parent,))
        if message:
            print(f"MLflow: {message}", file=sys.stderr)
        print(f"MLflow page: {view_hint(directory)}")
    return 0


def _check(text: str) -> tuple[str, str]:
    prediction, colon, directory = text.rpartition(":")
    if not colon or not prediction or not directory:
        raise ValueError(f"--check must look like PREDICTION.json:DIR, got {text!r}.")
    return prediction, directory


def collect_command(directory: Path) -> int:
    """Rebuilds the tables and says how large they are."""
    records = analysis.collect(directory)
    print(f"{len(records.trials)} runs -> {directory / 'trials.parquet'}")
    print(f"{len(records.telemetry)} rows -> {directory / 'telemetry.parquet'}")
    return 0


def sync_command(directory: Path, *, tracking_uri: str) -> int:
    """Sends what waits for MLflow; 0 when nothing waits any more, 3 otherwise."""
    message = sync(directory, tracking_uri=tracking_uri)
    print(message or f"MLflow has everything of {directory}")
    return 3 if message else 0
