"""The records of a watched run, as DESIGN has them: DIR/runs/<run_id>/ with its three files."""

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretune.analysis.records.rows import last_step, lines_below, whole_lines
from foretune.tuner.records.files import METRICS_FILE, MetricsFile, check_writable, write_record
from foretune.tuner.records.outcome_json import OUTCOME_FILE, RunEnd, Times
from foretune.tuner.records.run_json import FORMAT
from foretune.tuner.training.outcome import Outcome

FLUSH_S = 5.0
"""Rows are seen by readers at most so much later."""


class RunFolder:
    """Writes the files of one run."""

    def __init__(self, out: Path, run_id: str):
        """A run that has ended stays, and the next one of its config has a number behind its name.

        Raises ValueError where out can't be written, or is a sweep's.
        """
        if (out / "sweep.json").exists():
            raise ValueError(
                f"out must be a directory for watched runs, got {out}, which holds a sweep; name "
                f"another."
            )
        check_writable(out)
        names = itertools.chain([run_id], (f"{run_id}-{number}" for number in itertools.count(2)))
        folders = (out / "runs" / name for name in names)
        self.path = next(path for path in folders if not (path / OUTCOME_FILE).exists())
        self.run_id = self.path.name
        self._metrics: MetricsFile | None = None
        self._started, self._flushed = time.time(), time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the watch began."""
        return time.time() - self._started

    def open(self, step: int, facts: Mapping[str, Any]) -> None:
        """Writes run.json, and goes on with the rows before a step, if there are any."""
        path = self.path / METRICS_FILE
        kept = last_step(lines_below(whole_lines(path), step)) + 1
        self._metrics = MetricsFile(path, keep_below=kept)
        write_record(self.path / "run.json", {"format": FORMAT, "run_id": self.run_id, **facts})

    def append(self, step: int, row: Mapping[str, float], *, now: bool) -> None:
        """Appends a row; now makes it visible to readers at once."""
        assert self._metrics is not None, "open comes first"
        self._metrics(step, row)
        if now or time.monotonic() - self._flushed > FLUSH_S:
            self._metrics.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what waits, and leaves the run unfinished."""
        if self._metrics is not None:
            self._metrics.close()

    def end(self, outcome: Outcome) -> None:
        """Writes outcome.json, after the rows that it counts on."""
        if self._metrics is None:
            return
        rows = self._metrics.sync()
        self._metrics.close()
        times = Times(started=self._started, ended=time.time())
        RunEnd.of(self.run_id, outcome, times, rows).write(self.path)
