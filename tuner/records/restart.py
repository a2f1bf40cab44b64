"""Where a run goes on: its newest checkpoint that is whole, is the run's own, and has its rows.

A checkpoint counts on the rows before it. After a power cut or on a disk that fails either may be
damaged or missing; then the checkpoint before is taken, else the run's start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretune.analysis.records.rows import begin_with, last_step, lines_below, noted, whole_lines
from foretune.tuner.config.kept_secrets import without_secrets
from foretune.tuner.config.run import Run
from foretune.tuner.records.files import METRICS_FILE
from foretune.tuner.training.checkpoint import checkpoints, peek


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Where a run goes on."""

    checkpoint: Path | None = None
    """The file to restore; none for a run that begins with its first step."""
    step: int = 0
    """Updates in it."""
    val_loss: float | None = None
    """Validation loss at that step, where its row isn't written yet."""
    wrong: tuple[str, ...] = ()
    """What is wrong with newer checkpoints, a sentence each."""

    @property
    def note(self) -> str:
        """What is wrong and what is done about it; empty where nothing is."""
        where = f"from the checkpoint before, step {self.step}" if self.checkpoint else ""
        cure = f"it goes on {where}" if where else "it is trained from its start"
        return f"{' '.join(self.wrong)} So {cure}." if self.wrong else ""


def restart_of(run_dir: Path, run: Run | None = None) -> Restart:
    """Returns where the run of a folder goes on; run is whose checkpoints they must be."""
    lines, wrong = whole_lines(run_dir / METRICS_FILE), []
    for path in checkpoints(run_dir / "checkpoint"):
        try:
            state = peek(path)
            _check(path, state, lines, run)
        except ValueError as error:
            wrong.append(str(error))
            continue
        step, val_loss = int(state["step"]), state["row"].get("val_loss")
        return Restart(checkpoint=path, step=step, val_loss=val_loss, wrong=tuple(wrong))
    return Restart(wrong=tuple(wrong))


def _check(path: Path, state: dict[str, Any], lines: Sequence[bytes], run: Run | None) -> None:
    """Raises ValueError for a checkpoint that a run can't go on from."""
    if run is not None and state["run"] not in (without_secrets(run), repr(run)):
        raise ValueError(
            f"{path} must be a checkpoint of this run, got one of another run, or of another "
            f"version of foretune; remove it to train the run from the start."
        )
    if run is None and not lines and "rows" not in state:
        return  # Trained without a metrics file.
    before = lines_below(lines, state["step"])
    found = last_step(before) + 1
    if found != state["step"]:
        raise ValueError(
            f"{path} must have its {state['step']} rows in {METRICS_FILE}, got {found} whole ones; "
            f"remove it to train the run from the start."
        )
    if not begin_with(before, state.get("rows", noted(0, 0))):  # Older ones note none.
        raise ValueError(
            f"{path} must have its own rows in {METRICS_FILE}, got others; remove it to train the "
            f"run from the start."
        )
