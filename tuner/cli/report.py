"""`foretune report`: writes the page, prints what it says, and hands it to MLflow."""

import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from foretune.argument_error import Argument, ArgumentError
from foretune.redaction import redacted
from foretune.tuner.cli.collect import read_records


def report(
    directory: Positional[str],
    /,
    *,
    checks: Annotated[tuple[str, ...], arg(name="check", metavar="PREDICTION.json:DIR")] = (),
) -> int:
    """Writes DIR/report/index.html with figures and tables, and prints the verdict.

    Args:
        directory: the sweep's directory.
        checks: predictions to hold against sweeps at the size that they speak of.
    """
    from foretune.analysis.measures.thresholds import ATTENTION_LOGIT
    from foretune.analysis.report.findings import find, headline
    from foretune.analysis.report.report import write_page
    from foretune.tuner.cli.end_table import end_table
    from foretune.tuner.tracking.sender import sync, view_hint

    root = Path(directory)
    pairs = [_check(text) for text in checks]
    records = read_records(root)
    found = find(records, checks=pairs, level=0.9, threshold=ATTENTION_LOGIT.value)
    page = write_page(found)
    print(headline(found))
    table = end_table(records.trials)
    print(f"\n{table}\n\nreport: {page}" if table else f"\nreport: {page}")
    if (root / "mlflow.json").exists():
        try:
            message = sync(root, artifacts=(page.parent,))
        except ValueError as error:  # Of a copy, say: the page is there all the same.
            message = str(error)
        if message:
            print(f"MLflow: {redacted(message)}", file=sys.stderr)
        print(f"MLflow page: {view_hint(root)}")
    return 0


def _check(text: str) -> tuple[str, str]:
    prediction, colon, directory = text.rpartition(":")
    if not colon or not prediction or not directory:
        raise ArgumentError(
            Argument("checks"), f" must look like PREDICTION.json:DIR, got {text!r}."
        )
    return prediction, directory
