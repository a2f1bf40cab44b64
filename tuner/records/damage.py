"""What of a run's files can't be believed: damaged, changed since, or another run's."""

from pathlib import Path

from foretune.analysis.records.checksum import check_unchanged
from foretune.analysis.records.rows import begin_with, last_step, whole_lines
from foretune.tuner.records.files import METRICS_FILE
from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd
from foretune.tuner.records.run_json import RunRecord, is_named


def own_record(folder: Path) -> RunRecord | None:
    """Returns the record of the run that a folder is named after; None where none has begun there.

    Raises ValueError where it is damaged or gone, and the run with it.
    """
    path = folder / "run.json"
    if not path.exists():
        if not (folder / METRICS_FILE).exists():
            return None  # A driver was killed before it wrote the run down.
        raise ValueError(f"{path} must be there, got none; restore it, or start a new sweep.")
    check_unchanged(path)
    record = RunRecord.read(folder)
    if record.run_id != folder.name or not is_named(record.run_id, record.run):
        raise ValueError(
            f"{path} must hold the run that its folder is named after, got another config; "
            f"restore it."
        )
    return record


def why_not_ended(folder: Path, record: RunRecord) -> str:
    """Returns why the outcome of a run can't be its end, or nothing; nothing without an outcome."""
    try:
        end = RunEnd.read(folder)
        if end is not None:
            check_unchanged(folder / OUTCOME_FILE)
    except ValueError as error:
        return str(error)
    if end is None:
        return ""
    if end.run_id != record.run_id:
        return f"its {OUTCOME_FILE} is of run {end.run_id}."
    path = folder / METRICS_FILE
    if end.rows is None:
        lines = whole_lines(path)
    else:  # Their checksum says more than their JSON, and at once.
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if not begin_with(lines, end.rows):
            return f"its {METRICS_FILE} isn't the one that it ended with."
        lines = lines[: end.rows["count"]]
    if end.outcome.outcome == "finished" and last_step(lines) < record.run.steps:
        return f"it has finished with {len(lines)} of {record.run.steps + 1} rows."
    return ""
