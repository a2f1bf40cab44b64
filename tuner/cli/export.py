"""`foretune export`: a finished run as a file that other programs load, and what the file lost.

The file is read back and evaluated beside the trained model on the run's own validation data.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from foretune.argument_error import Argument, ArgumentError, spelled

if TYPE_CHECKING:
    from torch import nn

    from foretune.models.export.save import Exported
    from foretune.tuner.config.run import Run
    from foretune.tuner.records.exported import FinishedRun, ReadBack

NOTABLE = 1e-3
"""Largest logit difference that needs no explanation."""
BLOCK = 256
"""Weights of a row that share a block in TQ1_0 and TQ2_0; rows are D or 3 D long."""


def export(
    directory: Positional[str],
    /,
    *,
    format: Literal["safetensors", "gguf"] = "safetensors",
    packing: Literal["base3", "2bit"] = "base3",
    rest_dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    out: str = "",
    preset: str = "",
) -> int:
    """A finished ternary run as a file with packed weights, read back and evaluated.

    Prints what ternary and full-precision weights take, the validation loss of the trained model
    and of the file, and the largest logit difference.

    Args:
        directory: the run's directory, like OUT/runs/<id>.
        format: safetensors (any model) or gguf (preset lm-llama with a -bare quantizer), which
            llama.cpp runs.
        packing: base3 packs 5 trits a byte (in GGUF TQ1_0), 2bit packs 4 (TQ2_0).
        rest_dtype: number type of all that isn't ternary; bf16 is for safetensors, fp16 for gguf.
        out: new file, ending in the format's name; empty is <run_id>-<packing>.<format> in the
            run's directory.
        preset: FILE.py that defines the run's own model, where it isn't in the folder that you
            start from: no other code that records name is run.
    """
    from foretune.models.export.llama_layout import check_llama
    from foretune.models.export.save import load_model
    from foretune.tuner.config.user_files import load_file
    from foretune.tuner.records.exported import compare, read_finished, stream_of, trained_model
    from foretune.tuner.records.files import local_path

    named = local_path("out", out, file=True) if out else None
    if preset:
        load_file(preset)
    finished = read_finished(Path(directory))
    _check_exportable(finished.run, format)
    _check_rest(rest_dtype, format)
    path = named or Path(directory) / f"{finished.record.run_id}-{packing}.{format}"
    _check_out(path, format)
    stream = stream_of(finished)
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


def _check_rest(rest_dtype: str, format: str) -> None:
    from foretune.models.export.gguf_blocks import FULL_TYPES
    from foretune.models.export.safetensors_file import DTYPES

    known = {"safetensors": DTYPES, "gguf": FULL_TYPES}[format]
    if rest_dtype not in known:
        raise ArgumentError(
            Argument("rest_dtype"),
            f" must be {' or '.join(known)} for ",
            Argument("format"),
            f" {format}, got {rest_dtype}.",
        )


def _check_exportable(run: "Run", format: str) -> None:
    from foretune.models import TransformerConfig
    from foretune.models.quantization.formats import formats_of_trits

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
        raise ArgumentError(
            Argument("format"),
            " gguf needs a run without norms inside its layers, which the llama "
            "architecture lacks, got quantization.norm=True; train preset lm-llama with --set "
            "quantizer=ternary-mean-bare or ternary-median-bare, or export as safetensors.",
        )
    model = run.model
    if not isinstance(model, TransformerConfig) or model.mlp != "swiglu":
        return  # `check_llama` says what is missing.
    if model.width % BLOCK:
        raise ArgumentError(
            Argument("format"),
            f" gguf needs model.width to be a multiple of {BLOCK}, since its ternary types "
            f"pack {BLOCK} weights of a row at a time, got {model.width}; train at "
            f"{BLOCK * (model.width // BLOCK + 1)}, or export as safetensors.",
        )


def _check_out(path: Path, format: str) -> None:
    if path.suffix != f".{format}":
        raise ArgumentError(
            Argument("out"),
            f" must end in .{format} for ",
            Argument("format"),
            f" {format}, got {path}.",
        )
    if os.path.isfile(path.parent):
        raise ArgumentError(
            Argument("out"), f" must be in a folder, got {path}, and {path.parent} is a file."
        )
    if os.path.exists(path):  # Unlike Path's, false where the folder may not be looked into.
        raise ArgumentError(
            Argument("out"),
            f" must be a new file, got {path}, which exists; remove it or name another.",
        )


def _write(
    path: Path,
    finished: "FinishedRun",
    model: "nn.Module",
    format: str,
    packing: str,
    rest_dtype: str,
) -> "Exported":
    from foretune.models.export.save import export_model
    from foretune.tuner.records.exported import command_of

    facts = {
        "run_id": finished.record.run_id,
        "data_sha256": finished.outcome.data_sha256,
        "final_val_loss": finished.outcome.final_val_loss,
        "command": command_of(finished),
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
            facts=facts,
        )
    except OSError as error:
        raise ArgumentError(
            Argument("out"),
            f" must be a file that can be written, got {path} ({error.strerror}); name another.",
        ) from None


def _say(found: "ReadBack", finished: "FinishedRun") -> None:
    recorded = finished.outcome.final_val_loss
    print(
        f"validation loss: trained {found.trained_loss:.6f} (recorded {recorded:.6f}), read back "
        f"from the file {found.loaded_loss:.6f}"
    )
    print(
        f"largest logit difference: {found.largest_difference:.2e} over {found.predictions:,} "
        f"predictions (largest logit {found.largest_logit:.1f})"
    )


def why_different(run: "Run", format: str, rest_dtype: str) -> str:
    """Returns a line on why a file's logits are to be expected to differ, or nothing."""
    reasons: list[str] = []
    if format == "gguf" and run.quantization.scale_dtype != "float16":
        reasons.append(
            "GGUF keeps scales in fp16, which can flip int8 roundings of inputs (training with "
            "--set quantization.scale_dtype=float16 avoids it)"
        )
    if rest_dtype != "fp32":
        reasons.append(f"{spelled('rest_dtype')} {rest_dtype} rounds all that isn't ternary")
    if not reasons:
        return ""
    return f"more than {NOTABLE:g} is to be expected: {', and '.join(reasons)}\n"
