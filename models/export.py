"""Files that other programs load: packed ternary models as safetensors or GGUF, by one door.

Formats are in `models.ternary_file` (any model) and `models.gguf_file` (LMs with the Llama block).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from models.export_size import ExportSize
from models.gguf_file import load_gguf, save_gguf
from models.quantize import Quantization
from models.ternary_file import load_ternary, save_ternary
from models.ternary_model import Buildable

FORMATS = ("safetensors", "gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    size: ExportSize
    sentences: tuple[str, ...]
    """What isn't stored as asked for, and why."""


def export_model(
    path: Path,
    model: nn.Module,
    config: Buildable,
    quantization: Quantization,
    *,
    format: str = "safetensors",
    packing: str = "base3",
    rest_dtype: str = "fp32",
    facts: Mapping[str, Any] | None = None,
) -> Exported:
    """Writes a trained ternary model to a file of the given format; returns what it takes.

    config and quantization are those that the model was trained with. packing: base3 (5 trits a
    byte, in GGUF TQ1_0) or 2bit (4 a byte, TQ2_0). rest_dtype, of all that isn't ternary: fp32, or
    bf16 (safetensors), fp16 (GGUF). facts are JSON values about the run. Raises ValueError for a
    model that can't be exported, saying why.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    sentences: tuple[str, ...] = ()
    if format == "gguf":
        written = save_gguf(
            path,
            model,
            config,
            quantization,
            packing_name=packing,
            rest_dtype=rest_dtype,
            facts=facts,
        )
        size, sentences = written.size, written.sentences
    else:
        size = save_ternary(
            path,
            model,
            config,
            quantization,
            packing_name=packing,
            rest_dtype=rest_dtype,
            facts=facts,
        )
    return Exported(path=path, size=size, sentences=sentences)


def load_model(path: Path, config: Buildable | None = None) -> nn.Module:
    """Returns the model of an exported file (by its ending, .gguf or .safetensors), to evaluate.

    config is needed for models of a kind of the user's own. Raises ValueError for another or a
    damaged file.
    """
    if path.suffix == ".gguf":
        return load_gguf(path)
    if path.suffix == ".safetensors":
        return load_ternary(path, config)
    raise ValueError(f"{path} must end in .safetensors or .gguf, the formats that export writes.")
