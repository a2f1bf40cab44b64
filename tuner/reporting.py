"""`foretune report`: writes the page, prints what it says, and hands it to MLflow."""

import sys
from collections.abc import Iterable
from pathlib import Path

import analysis
from analysis.findings import find, headline
from analysis.report import write_page
from analysis.thresholds import ATTENTION_LOGIT
from tuner.end_table import end_table
from tuner.mlflow_tracker import sync, view_hint


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
