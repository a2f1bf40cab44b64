"""One run without Ray: `foretune train`."""

from collections.abc import Iterable
from pathlib import Path

import torch

from tuner.checkpoint import CHECKPOINT_FILE, checkpoint_step
from tuner.outcome import Outcome
from tuner.resolve import parse_assignments, resolve
from tuner.rundir import MetricsFile, check_writable, describe, run_id, write_json
from tuner.streams import open_stream
from tuner.train import Training, pick_device


def train_one(
    preset: str,
    *,
    out: Path,
    interventions: Iterable[str] = (),
    overrides: Iterable[str] = (),
    size: int | None = None,
    device: str = "auto",
    threads: int = 1,
    command: str = "",
) -> int:
    """Trains one run into out/runs/<id>/, printing every validation; returns the exit code.

    A finished one keeps its weights there, and nothing to go on from.
    Goes on from the run's checkpoint where there is one. Raises ValueError for bad arguments.
    """
    changes = parse_assignments(overrides)
    run = resolve(preset, size=size, interventions=interventions, overrides=changes)
    if threads < 1:
        raise ValueError(f"--threads must be 1 or more, got {threads}.")
    torch.set_num_threads(threads)
    directory = out / "runs" / run_id(run)
    if (directory / "outcome.json").exists():
        raise ValueError(f"--out must not hold this run already, got {directory}; name another.")
    checkpoint = directory / "checkpoint"
    step = checkpoint_step(checkpoint)
    restore = checkpoint if step is not None else None
    pick_device(device)
    open_stream(run.data, batch_size=run.batch_size)  # Both for their rules alone.
    check_writable(directory)
    metrics = MetricsFile(directory / "metrics.jsonl", keep_below=step or 0)
    training = Training(run, metrics, device=device, restore=restore)
    facts = {**describe(run), "data_sha256": training.stream.corpus.sha256, "command": command}
    write_json(directory / "run.json", facts)
    print(f"{facts['n_params']:,} parameters without embedding and head, {run.steps} steps")
    try:
        outcome = _to_the_end(training, checkpoint, metrics)
    except KeyboardInterrupt:
        # Nothing to save: Ctrl-C may have come in the middle of an update.
        print("Interrupted; the same command goes on from the last validation.")
        return 130
    finally:
        metrics.close()
    write_json(directory / "outcome.json", outcome.record(run_id(run)))
    if outcome.outcome == "finished":  # And so it can't be asked to go on.
        (checkpoint / CHECKPOINT_FILE).unlink(missing_ok=True)
    print(f"{outcome.outcome}: {outcome.reason}\nrecords: {directory}")
    return 0


def _to_the_end(training: Training, checkpoint: Path, metrics: MetricsFile) -> Outcome:
    while training.outcome is None:
        training.advance()
        loss = f"{training.val_loss:.4f}" if training.val_loss is not None else "none"
        print(f"step {training.step:>7}  val_loss {loss}  {training.seconds:.1f} s", flush=True)
        metrics.flush()  # Before the checkpoint: a kill in between must leave no hole.
        if training.outcome is None:
            training.save(checkpoint)
    if training.outcome.outcome == "finished":
        training.save_model(checkpoint)
    return training.outcome
