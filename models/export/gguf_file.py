"""Ternary LMs as GGUF files of the llama architecture, which llama.cpp and its relatives run.

Scales become fp16 there, and llama.cpp quantizes activations per block of 256 inputs, not per
token, so its logits are near the trained ones, not equal (`docs/ternary.md` has the distance).
Keys of our own, `foretune.*`, let `load_gguf` build our model from a file.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, GGUFWriter, LlamaFileType
from torch import Tensor, nn

from foretune.models.blocks.buildable import Buildable
from foretune.models.blocks.layers import NORM_EPSILON
from foretune.models.export.byte_tokens import add_tokenizer
from foretune.models.export.config_json import (
    config_from_json,
    config_to_json,
    quantization_from_json,
    quantization_to_json,
)
from foretune.models.export.gguf_blocks import (
    FULL_TYPES,
    TERNARY_TYPES,
    Encoded,
    decode,
    encode_full,
    encode_ternary,
)
from foretune.models.export.llama_layout import (
    ROPE_BASE,
    check_llama,
    from_llama,
    llama_names,
    to_llama,
)
from foretune.models.export.packing import packing
from foretune.models.export.size import ExportSize
from foretune.models.export.ternary_model import TernaryParts, rebuild, take_apart
from foretune.models.nets.transformer import TransformerConfig
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.scales import absmax, dequantize, measure
from foretune.models.quantization.statistics import TernaryWeight
from foretune.whole_files import atomic_write

VERSION = 1
FILE_TYPES = {"base3": LlamaFileType.MOSTLY_TQ1_0, "2bit": LlamaFileType.MOSTLY_TQ2_0}


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFExport:
    """What was written."""

    size: ExportSize
    sentences: tuple[str, ...]
    """What isn't stored as asked for, and why."""


def save_gguf(
    path: Path,
    model: nn.Module,
    config: Buildable,
    quantization: Quantization,
    *,
    packing_name: str = "base3",
    rest_dtype: str = "fp32",
    facts: Mapping[str, Any] | None = None,
) -> GGUFExport:
    """Writes a trained ternary LM; returns what it takes and what was stored otherwise.

    packing_name base3 is TQ1_0, 2bit TQ2_0 (larger, and faster to run). rest_dtype (fp32, fp16) is
    that of embedding and head. facts are JSON values about the run. Raises ValueError for a model
    that isn't a llama (naming the options that make it one), and as `take_apart` does.
    """
    packing(packing_name)
    if rest_dtype not in FULL_TYPES:
        raise ValueError(f"rest_dtype must be one of {', '.join(FULL_TYPES)}, got {rest_dtype!r}.")
    llama = check_llama(model, config, quantization)
    parts = take_apart(model)
    encoded = _encode(parts, llama.depth, packing_name, rest_dtype)
    about = {
        "model": config_to_json(config),
        "quantization": quantization_to_json(quantization),
        "ternary": list(parts.ternary),
        "facts": dict(facts or {}),
    }
    with atomic_write(path) as partial:
        _write(partial, llama, packing_name, encoded, about)
    wanted = TERNARY_TYPES[packing_name].name
    return GGUFExport(size=_size(encoded, path), sentences=_sentences(encoded, wanted))


def load_gguf(path: Path) -> nn.Module:
    """Returns our model of a file that `save_gguf` wrote, ready to evaluate.

    Activations are quantized as in training, scales are the file's: rounded to fp16. Raises
    ValueError for another or a damaged file.
    """
    keys, tensors = _read(path)
    version = keys.get("foretune.format_version")
    if version != VERSION:
        raise ValueError(
            f"{path} must be a GGUF file that foretune wrote (version {VERSION}), got version "
            f"{version}; llama.cpp loads files of other programs."
        )
    config = config_from_json(json.loads(keys["foretune.model"]))
    if not isinstance(config, TransformerConfig):
        raise ValueError(f"{path} must hold a transformer; the file is damaged.")
    quantization = quantization_from_json(json.loads(keys["foretune.quantization"]))
    values = from_llama(tensors, config.depth)
    ternary = {
        name: _split(f"{path}: {name}", values.pop(f"{name}.weight"), quantization)
        for name in json.loads(keys["foretune.ternary"])
    }
    return rebuild(config, quantization, TernaryParts(ternary=ternary, rest=values))


def _write(
    path: Path,
    config: TransformerConfig,
    packing_name: str,
    encoded: Mapping[str, Encoded],
    about: Mapping[str, Any],
) -> None:
    writer = GGUFWriter(path, "llama")
    _add_hyperparameters(writer, config, hidden=len(encoded["blk.0.ffn_up.weight"].data))
    add_tokenizer(writer, config.vocab_size)
    writer.add_file_type(FILE_TYPES[packing_name])
    writer.add_uint32("foretune.format_version", VERSION)
    for key, value in about.items():
        writer.add_string(f"foretune.{key}", json.dumps(value, allow_nan=False))
    for name, tensor in encoded.items():
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_hyperparameters(writer: GGUFWriter, config: TransformerConfig, *, hidden: int) -> None:
    writer.add_name("foretune")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.depth)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)


def _encode(
    parts: TernaryParts, depth: int, packing_name: str, rest_dtype: str
) -> dict[str, Encoded]:
    """Returns all tensors of the file, in the order of the model's parameters."""
    names = llama_names(depth)
    ternary = {o for layer in parts.ternary for o in names[f"{layer}.weight"]}
    values = {f"{n}.weight": dequantize(*weight) for n, weight in parts.ternary.items()}
    return {
        name: encode_ternary(value.numpy(), packing_name)
        if name in ternary
        else encode_full(value.float().numpy(), rest_dtype)
        for name, value in to_llama(values | parts.rest, depth).items()
    }


def _size(encoded: Mapping[str, Encoded], path: Path) -> ExportSize:
    weights, sizes = defaultdict(int), defaultdict(int)
    for tensor in encoded.values():
        weights[tensor.part] += tensor.weights
        sizes[tensor.part] += tensor.data.nbytes
    return ExportSize(
        ternary_weights=weights["ternary"],
        ternary_bytes=sizes["ternary"],
        fallback_weights=weights["fallback"],
        fallback_bytes=sizes["fallback"],
        full_weights=weights["full"],
        full_bytes=sizes["full"],
        file_bytes=path.stat().st_size,
    )


def _sentences(encoded: Mapping[str, Encoded], wanted: str) -> tuple[str, ...]:
    """Returns one sentence for all tensors that share type and reason."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, tensor in encoded.items():
        if tensor.why:
            asked = wanted if tensor.part == "fallback" else "F16"
            groups[tensor.type.name, asked, tensor.why].append(name)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: stored as {type} instead "
        f"of {asked}, since {why}."
        for (type, asked, why), names in groups.items()
    )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(f"{path} must be a file, and isn't there; foretune export writes it.")
    try:
        reader = GGUFReader(path)
        keys = {name: field.contents() for name, field in reader.fields.items()}
        # Copies, since the reader maps the file and F32 tensors would be views of it.
        tensors = {
            t.name: torch.from_numpy(decode(t.data, t.tensor_type).copy()) for t in reader.tensors
        }
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path} must be a GGUF file, got a damaged one ({error}); export it again."
        ) from None
    return keys, tensors


def _split(name: str, value: Tensor, quantization: Quantization) -> TernaryWeight:
    """Returns trits and scale of a weight that holds -scale, 0 and scale."""
    largest = measure(value, absmax, quantization.granularity, quantization.group_size)
    weight = TernaryWeight(value.sign().to(torch.int8), largest)
    # Where all trits are 0 `measure` gives its floor.
    if not torch.equal(dequantize(*weight), value):
        raise ValueError(f"{name} must be ternary, got more than three values; export it again.")
    return weight
