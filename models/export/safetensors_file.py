"""Ternary models as safetensors files: packed trits, fp32 scales, and the rest in full precision.

For each ternary layer L of shape S there are `L.weight.trits` (uint8, `models.export.packing`) and
`L.weight.scale` (fp32, shape (), (O, 1) or (O, G)); weight = trits x scale. All other tensors have
their names in the state_dict. The metadata's one entry `foretune` is JSON:

    format_version   1
    packing          "base3" or "2bit"
    shapes           {"L.weight": S}
    model            kind and fields of the model config
    quantization     fields of `models.quantization.config.Quantization`
    facts            whatever the exporter says about the run
    how_to_read      the rule of the packing in words

One entry, since safetensors writes several in an order that changes from file to file.
`models.export.reference_decoder` reads such a file with numpy alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from foretune.models.blocks.buildable import Buildable
from foretune.models.export.config_json import (
    config_from_json,
    config_to_json,
    quantization_from_json,
    quantization_to_json,
)
from foretune.models.export.packing import pack, packing, unpack
from foretune.models.export.size import ExportSize
from foretune.models.export.ternary_model import TernaryParts, check_weight, rebuild, take_apart
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.statistics import TernaryWeight
from foretune.whole_files import atomic_write

KEY, VERSION = "foretune", 1
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""How the rest is stored; integer buffers stay as they are."""
HOW_TO_READ = (
    "weight = trits * scale. trits: uint8, row-major; base3: byte = d0 + 3 d1 + 9 d2 + 27 d3 + "
    "81 d4; 2bit: byte = d0 + 4 d1 + 16 d2 + 64 d3; trit = d - 1; the last byte is filled with "
    "d = 1. scale: one number, one per row (O, 1), or one per group of a row (O, G)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TernaryFile:
    """What such a file holds."""

    parts: TernaryParts
    packing: str
    model: dict[str, Any]
    """Kind and fields of the model config."""
    quantization: Quantization
    facts: dict[str, Any]


def save_ternary(
    path: Path,
    model: nn.Module,
    config: Buildable,
    quantization: Quantization,
    *,
    packing_name: str = "base3",
    rest_dtype: str = "fp32",
    facts: Mapping[str, Any] | None = None,
) -> ExportSize:
    """Writes a trained ternary model; returns what it takes.

    facts are JSON values about the run. Raises ValueError for a model that isn't ternary at full
    strength, values that aren't finite, and names that aren't in PACKINGS or DTYPES.
    """
    packing(packing_name)
    if rest_dtype not in DTYPES:
        raise ValueError(f"rest_dtype must be one of {', '.join(DTYPES)}, got {rest_dtype!r}.")
    parts = take_apart(model)
    rest = {n: _stored(value, DTYPES[rest_dtype]) for n, value in parts.rest.items()}
    ternary: dict[str, Tensor] = {}
    for name, (levels, scale) in parts.ternary.items():
        ternary[f"{name}.weight.trits"] = pack(levels, packing_name)
        ternary[f"{name}.weight.scale"] = scale.contiguous()
    about = {
        "format_version": VERSION,
        "packing": packing_name,
        "shapes": {f"{n}.weight": list(w.levels.shape) for n, w in parts.ternary.items()},
        "model": config_to_json(config),
        "quantization": quantization_to_json(quantization),
        "facts": dict(facts or {}),
        "how_to_read": HOW_TO_READ,
    }
    # save_file would make it readable by its owner alone, whatever the umask.
    with atomic_write(path) as partial:
        partial.write_bytes(save(ternary | rest, {KEY: json.dumps(about, allow_nan=False)}))
    return ExportSize(
        ternary_weights=sum(w.levels.numel() for w in parts.ternary.values()),
        ternary_bytes=sum(t.nbytes for t in ternary.values()),
        fallback_weights=0,
        fallback_bytes=0,
        full_weights=sum(t.numel() for t in rest.values()),
        full_bytes=sum(t.nbytes for t in rest.values()),
        file_bytes=path.stat().st_size,
    )


def read_ternary(path: Path) -> TernaryFile:
    """Returns the content of a file that `save_ternary` wrote, the rest in fp32.

    Raises ValueError for another or a damaged file.
    """
    metadata, tensors = _read(path)
    try:
        about = json.loads(metadata.get(KEY, "{}"))
        if about.get("format_version") != VERSION:
            raise ValueError(
                f"{path} must be a ternary file of foretune's (version {VERSION}), got version "
                f"{about.get('format_version')}; export the run with this version of foretune."
            )
        quantization = quantization_from_json(about["quantization"])
        shapes = about["shapes"]
        packed = {n: (tensors.pop(f"{n}.trits"), tensors.pop(f"{n}.scale")) for n in shapes}
    except (KeyError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from None
    ternary = {}
    for name, (trits, scale) in packed.items():
        weight = TernaryWeight(unpack(trits, shapes[name], about["packing"]), scale)
        check_weight(name, weight)
        ternary[name.removesuffix(".weight")] = weight
    rest = {n: _stored(value, torch.float32) for n, value in tensors.items()}
    return TernaryFile(
        parts=TernaryParts(ternary=ternary, rest=rest),
        packing=about["packing"],
        model=about["model"],
        quantization=quantization,
        facts=about["facts"],
    )


def load_ternary(path: Path, config: Buildable | None = None) -> nn.Module:
    """Returns the model of a file, ready to evaluate: the logits of the exported one.

    config is needed where the model is of a kind of the user's own, which a file can't be trusted
    to name. Raises ValueError for another or a damaged file.
    """
    file = read_ternary(path)
    return rebuild(config or config_from_json(file.model), file.quantization, file.parts)


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(f"{path} must be a file, and isn't there; foretune export writes it.")
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} must be a ternary safetensors file, got a damaged one "
        f"({type(error).__name__}: {error}); export it again."
    )
