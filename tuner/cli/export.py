"""`foretune export`: a finished run as a file that other programs load, and what the file lost.

The file is read back and evaluated beside the trained model on the run's own validation data.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from foretune.models import TransformerConfig
from foretune.models.export.gguf_blocks import FULL_TYPES
from foretune.models.export.llama_layout import check_llama
from foretune.models.export.safetensors_file import DTYPES
from foretune.models.export.save import Exported, export_model, load_model
from foretune.models.nets.parametrize import parametrize
from foretune.models.quantization.formats import formats_of_trits
from foretune.models.quantization.layers import refresh
from foretune.models.quantization.replace import quantize
from foretune.tuner.config.run import Run
from foretune.tuner.data.streams import Stream, open_stream, validation_parts
from foretune.tuner.records.files import local_path
from foretune.tuner.records.journal import holds_sweep
from foretune.tuner.records.outcome_json import RunEnd
from foretune.tuner.records.run_json import RunRecord
from foretune.tuner.records.sweep_json import SweepRecord
from foretune.tuner.training.checkpoint import MODEL_FILE, read_model
from foretune.tuner.training.losses import cross_entropy
from foretune.tuner.training.outcome import Outcome

REST_DTYPES = {"safetensors": tuple(DTYPES), "gguf": tuple(FULL_TYPES)}
NOTABLE = 1e-3
"""Largest logit difference that needs no explanation."""
BLOCK = 256
"""Weights of a row that share a block in TQ1_0 and TQ2_0; rows are D or 3 D long."""


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
class Comparison:
    """The trained model and the one of the file on the validation data."""

    trained_loss: float
    """In nats."""
    loaded_loss: float
    largest_difference: float
    """Of any logit."""
    largest_logit: float
    """Of the trained model, absolute."""
    predictions: int


def export_run(
    directory: Path,
    *,
    format: str = "safetensors",
    packing: str = "base3",
    rest_dtype: str = "fp32",
    out: Path | None = None,
) -> int:
    """Exports the run in a directory, says what the file takes and lost; returns the exit code.

    out is by default <run_id>-<packing>.<format> in the directory. Raises ValueError for what can't
    be exported, before it writes.
    """
    finished = read_finished(directory)
    _check_exportable(finished.run, format)
    if rest_dtype not in REST_DTYPES[format]:
        raise ValueError(
            f"--rest-dtype must be {' or '.join(REST_DTYPES[format])} for --format {format}, got "
            f"{rest_dtype}."
        )
    path = out or directory / f"{finished.record.run_id}-{packing}.{format}"
    _check_out(path, format)
    stream = _stream(finished)
    model = trained_model(finished)
    if format == "gguf":
        check_llama(model, finished.run.model, finished.run.quantization)
    exported = _write(path, finished, model, format, packing, rest_dtype)
    print(exported.size)
    for sentence in exported.sentences:
        print(sentence)
    found = compare(finished.run, stream, model, load_model(path, finished.run.model))
    _say(found, finished)
    if found.largest_difference > NOTABLE:
        print(why_different(finished.run, format, rest_dtype), end="")
    print(f"written: {path}")
    return 0


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
        raise ValueError(
            f"RUN_DIR must hold the run's final weights, got {directory} without checkpoint/"
            f"{MODEL_FILE}; run it again with foretune train, or its sweep with --keep-models."
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


@torch.no_grad()
def compare(run: Run, stream: Stream, trained: nn.Module, loaded: nn.Module) -> Comparison:
    """Returns losses and largest differences over the validation data, in the run's precision."""
    losses, differences, largest, samples, predictions = [0.0, 0.0], 0.0, 0.0, 0, 0
    for inputs, targets in validation_parts(run, stream):
        mine, other = (_logits(run, model, inputs) for model in (trained, loaded))
        for which, logits in enumerate((mine, other)):
            losses[which] += float(cross_entropy(logits, targets)) * len(inputs)
        differences = max(differences, float((mine - other).abs().max()))
        largest = max(largest, float(mine.abs().max()))
        samples, predictions = samples + len(inputs), predictions + targets.numel()
    return Comparison(
        trained_loss=losses[0] / samples,
        loaded_loss=losses[1] / samples,
        largest_difference=differences,
        largest_logit=largest,
        predictions=predictions,
    )


def _logits(run: Run, model: nn.Module, inputs: Tensor) -> Tensor:
    autocast = run.precision == "bfloat16"
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        return model(inputs).float()


def _say(found: Comparison, finished: FinishedRun) -> None:
    recorded = finished.outcome.final_val_loss
    print(
        f"validation loss: trained {found.trained_loss:.6f} (recorded {recorded:.6f}), read back "
        f"from the file {found.loaded_loss:.6f}"
    )
    print(
        f"largest logit difference: {found.largest_difference:.2e} over {found.predictions:,} "
        f"predictions (largest logit {found.largest_logit:.1f})"
    )


def why_different(run: Run, format: str, rest_dtype: str) -> str:
    """Returns a line on why a file's logits are to be expected to differ, or nothing."""
    reasons: list[str] = []
    if format == "gguf" and run.quantization.scale_dtype != "float16":
        reasons.append(
            "GGUF keeps scales in fp16, which can flip int8 roundings of inputs (training with "
            "--set quantization.scale_dtype=float16 avoids it)"
        )
    if rest_dtype != "fp32":
        reasons.append(f"--rest-dtype {rest_dtype} rounds all that isn't ternary")
    if not reasons:
        return ""
    return f"more than {NOTABLE:g} is to be expected: {', and '.join(reasons)}\n"


def _record(directory: Path) -> RunRecord:
    try:
        return RunRecord.read(directory)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"run.json must have the fields of this version of foretune, got another "
            f"({type(error).__name__}: {error}); train the run again."
        ) from None


def _check_exportable(run: Run, format: str) -> None:
    quantization = run.quantization
    if quantization.format not in formats_of_trits():
        raise ValueError(
            f"export needs a run with ternary weights, got quantization.format="
            f"{quantization.format}; train with --set quantizer=ternary-mean or ternary-median "
            f"(for GGUF preset lm-llama with ternary-mean-bare or ternary-median-bare)."
        )
    if format != "gguf":
        return
    if quantization.norm:
        raise ValueError(
            "--format gguf needs a run without norms inside its layers, which the llama "
            "architecture lacks, got quantization.norm=True; train preset lm-llama with --set "
            "quantizer=ternary-mean-bare or ternary-median-bare, or export as safetensors."
        )
    model = run.model
    if not isinstance(model, TransformerConfig) or model.mlp != "swiglu":
        return  # `check_llama` says what is missing.
    if model.width % BLOCK:
        raise ValueError(
            f"--format gguf needs model.width to be a multiple of {BLOCK}, since its ternary types "
            f"pack {BLOCK} weights of a row at a time, got {model.width}; train at "
            f"{BLOCK * (model.width // BLOCK + 1)}, or export as safetensors."
        )


def _check_out(path: Path, format: str) -> None:
    local_path("--out", path, file=True)
    if path.suffix != f".{format}":
        raise ValueError(f"--out must end in .{format} for --format {format}, got {path}.")
    if os.path.isfile(path.parent):
        raise ValueError(f"--out must be in a folder, got {path}, and {path.parent} is a file.")
    if os.path.exists(path):  # Unlike Path's, false where the folder may not be looked into.
        raise ValueError(
            f"--out must be a new file, got {path}, which exists; remove it or name another."
        )


def _stream(finished: FinishedRun) -> Stream:
    """Returns the run's own data; ValueError where it isn't there or another."""
    stream = open_stream(finished.run.data, batch_size=finished.run.batch_size)
    if stream.corpus.sha256 != finished.outcome.data_sha256:
        raise ValueError(
            f"The data of data.name={finished.run.data.name} must be those that the run saw, got "
            f"others (a different Python or changed files); restore them."
        )
    return stream


def _write(
    path: Path, finished: FinishedRun, model: nn.Module, format: str, packing: str, rest_dtype: str
) -> Exported:
    told = {
        "run_id": finished.record.run_id,
        "data_sha256": finished.outcome.data_sha256,
        "final_val_loss": finished.outcome.final_val_loss,
        "command": _command(finished),
    }
    try:
        return export_model(
            path,
            model,
            finished.run.model,
            finished.run.quantization,
            format=format,
            packing=packing,
            rest_dtype=rest_dtype,
            facts=told,
        )
    except OSError as error:
        raise ValueError(
            f"--out must be a file that can be written, got {path} ({error.strerror}); name "
            f"another."
        ) from None


def _command(finished: FinishedRun) -> str:
    """The command that trained the run: its own, or its sweep's."""
    own, directory = finished.record.command, finished.directory.resolve().parents[1]
    if own is not None or not holds_sweep(directory):
        return own or ""
    return SweepRecord.read(directory).command
