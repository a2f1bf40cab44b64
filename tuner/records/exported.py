"""A finished run read back: its model as it was trained, and beside the one of an exported file."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from foretune.argument_error import Argument, ArgumentError
from foretune.models.nets.parametrize import parametrize
from foretune.models.quantization.layers import refresh
from foretune.models.quantization.replace import quantize
from foretune.redaction import redacted
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import Stream, open_stream, validation_parts
from foretune.tuner.records.journal import holds_sweep
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.training.checkpoint import MODEL_FILE, read_model
from foretune.tuner.training.losses import cross_entropy
from foretune.tuner.training.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run and what it left."""

    directory: Path
    record: RunRecord
    outcome: Outcome

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.record.run


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """The trained model and the one of the file on the validation data."""

    trained_loss: float
    """In nats."""
    loaded_loss: float
    largest_difference: float
    """Of any logit."""
    largest_logit: float
    """Of the trained model, absolute."""
    predictions: int


def read_finished(directory: Path) -> FinishedRun:
    """Returns what a run left; ValueError where it isn't a finished run that kept its weights."""
    if not (directory / "run.json").is_file():
        raise ValueError(
            f"RUN_DIR must be the folder of one run, like OUT/runs/<id>, got {directory} without "
            f"run.json."
        )
    end = RunEnd.read(directory)
    if end is None:
        raise ValueError(
            f"RUN_DIR must hold a finished run, got {directory}, which has no outcome yet; go on "
            f"with the command that began it, or with foretune resume."
        )
    outcome = end.outcome
    if outcome.outcome != "finished":
        raise ValueError(
            f"RUN_DIR must hold a finished run, got one that is {outcome.outcome} "
            f"({outcome.reason}); such runs keep no weights."
        )
    if not (directory / "checkpoint" / MODEL_FILE).is_file():
        raise ArgumentError(
            f"RUN_DIR must hold the run's final weights, got {directory} without checkpoint/"
            f"{MODEL_FILE}; run it again with foretune train, or its sweep with ",
            Argument("keep_models"),
            ".",
        )
    return FinishedRun(directory=directory, record=_record(directory), outcome=outcome)


def trained_model(finished: FinishedRun) -> nn.Module:
    """Returns the model as it ended, on the CPU, ready to evaluate."""
    run, directory = finished.run, finished.directory / "checkpoint"
    model = run.model.build()
    parametrize(model, run.model, run.parametrization)
    quantize(model, run.quantization)
    try:
        model.load_state_dict(read_model(directory))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{directory / MODEL_FILE} must hold the weights of the model in run.json, got others "
            f"({reason}); train the run again."
        ) from None
    model.eval()
    refresh(model, run.quantization.strength_at(run.steps, run.steps))
    return model


def stream_of(finished: FinishedRun) -> Stream:
    """Returns the run's own data; ValueError where it isn't there or another."""
    stream = open_stream(finished.run.data, batch_size=finished.run.batch_size)
    if stream.corpus.sha256 != finished.outcome.data_sha256:
        raise ValueError(
            f"The data of data.name={finished.run.data.name} must be those that the run saw, got "
            f"others (a different Python or changed files); restore them."
        )
    return stream


@torch.no_grad()
def compare(run: Run, stream: Stream, trained: nn.Module, loaded: nn.Module) -> ReadBack:
    """Returns losses and largest differences over the validation data, in the run's precision."""
    losses, differences, largest, samples, predictions = [0.0, 0.0], 0.0, 0.0, 0, 0
    for inputs, targets in validation_parts(run, stream):
        mine, other = (_logits(run, model, inputs) for model in (trained, loaded))
        for which, logits in enumerate((mine, other)):
            losses[which] += float(cross_entropy(logits, targets)) * len(inputs)
        differences = max(differences, float((mine - other).abs().max()))
        largest = max(largest, float(mine.abs().max()))
        samples, predictions = samples + len(inputs), predictions + targets.numel()
    return ReadBack(
        trained_loss=losses[0] / samples,
        loaded_loss=losses[1] / samples,
        largest_difference=differences,
        largest_logit=largest,
        predictions=predictions,
    )


def command_of(finished: FinishedRun) -> str:
    """Returns the command that trained the run: its own, or its sweep's."""
    own, directory = finished.record.command, finished.directory.resolve().parents[1]
    if own is not None or not holds_sweep(directory):
        return redacted(own or "")
    return redacted(SweepRecord.read(directory).command)


def _logits(run: Run, model: nn.Module, inputs: Tensor) -> Tensor:
    autocast = run.precision == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        return model(inputs).float()


def _record(directory: Path) -> RunRecord:
    try:
        return RunRecord.read(directory)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"run.json must have the fields of this version of foretune, got another "
            f"({type(error).__name__}: {error}); train the run again."
        ) from None
