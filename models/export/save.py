"""Files that other programs load: packed ternary models as safetensors or GGUF, by one door.

Formats are in `models.export.safetensors_file` (any model) and `models.export.gguf_file` (LMs with
the Llama block).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foretune.models.blocks.block import Block
from foretune.models.blocks.buildable import Buildable
from foretune.models.blocks.layers import Tap
from foretune.models.export.gguf_file import load_gguf, save_gguf
from foretune.models.export.safetensors_file import load_ternary, save_ternary
from foretune.models.export.size import ExportSize
from foretune.models.quantization.config import Quantization

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
    _check_scales(model, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {"packing_name": packing, "rest_dtype": rest_dtype, "facts": facts}
    if format == "gguf":
        written = save_gguf(path, model, config, quantization, **how)
        return Exported(path=path, size=written.size, sentences=written.sentences)
    size = save_ternary(path, model, config, quantization, **how)
    return Exported(path=path, size=size, sentences=())


def _check_scales(model: nn.Module, config: Buildable) -> None:
    """A file has weights and config; factors that a parametrization set would be lost."""
    with torch.device("meta"):
        built = _scales(config.build())
    for name, value in _scales(model).items():
        if name in built and built[name] != value:
            raise ValueError(
                f"export needs a model with the factors that its config builds, got {name} "
                f"{value:.6g} instead of {built[name]:.6g}; train without parametrization."
                f"base_depth, and with model.attention_scale=linear where parametrization.name="
                f"mup-full is wanted."
            )


def _scales(model: nn.Module) -> dict[str, float]:
    taps = {n: m for n, m in model.named_modules() if isinstance(m, Tap)}
    blocks = {n: m for n, m in model.named_modules() if isinstance(m, Block)}
    return {f"{n}.scale": m.scale for n, m in taps.items()} | {
        f"{n}.branch_scale": m.branch_scale for n, m in blocks.items()
    }


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
