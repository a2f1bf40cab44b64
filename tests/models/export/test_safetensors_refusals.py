"""Models that aren't ternary and files that aren't whole are refused in a sentence."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import quantized

from foretune.models import TransformerConfig
from foretune.models.export.safetensors_file import save_ternary
from foretune.models.export.save import load_model
from foretune.models.quantization.config import Quantization

torch.set_num_threads(1)

LM = TransformerConfig(width=32, depth=2, head_dim=8, max_positions=32)
TERNARY = Quantization(format="ternary")


def test_a_weight_that_is_ternary_in_one_place_alone_is_refused(tmp_path):
    """The head is ternary, the embedding isn't: one stored weight can't serve both."""
    quantization = replace(TERNARY, head=True)
    model = quantized(LM, quantization)
    model.embedding.weight = model.head.weight
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match=r"got head, which shares its own with embedding\.weight"):
        save_ternary(path, model, LM, quantization)


def test_models_that_are_not_ternary_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="must hold ternary layers, got none"):
        save_ternary(path, LM.build(), LM, Quantization())
    int8 = Quantization(format="int8")
    with pytest.raises(ValueError, match=r"format=ternary or binary, got Integer\(bits=8"):
        save_ternary(path, quantized(LM, int8), LM, int8)
    half = replace(TERNARY, strength=0.5)
    with pytest.raises(ValueError, match=r"strength=1, got 0\.5 in"):
        save_ternary(path, quantized(LM, half), LM, half)
    for place in ("blocks.0.mlp.mlp_in", "head"):
        model = quantized(LM, TERNARY)
        with torch.no_grad():
            model.get_submodule(place).weight[0, 0] = float("nan")
        with pytest.raises(ValueError, match=f"needs finite .*, got nan or inf in {place}"):
            save_ternary(path, model, LM, TERNARY)
    assert list(tmp_path.iterdir()) == []


def as_metadata(about):
    return {"foretune": json.dumps(about)}


def test_files_that_are_not_ours_are_refused(tmp_path):
    model = quantized(LM, TERNARY)
    path, other = tmp_path / "m.safetensors", tmp_path / "other.safetensors"
    save_ternary(path, model, LM, TERNARY)
    with pytest.raises(ValueError, match="must be a file, and isn't there"):
        load_model(other)
    other.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="got a damaged one"):
        load_model(other)
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(
        ValueError, match=r"must be a ternary file of foretune's \(version 1\), got version None"
    ):
        load_model(other)

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["foretune"])
    tensors = load_file(path)
    changes = {
        "at byte 0; the file is damaged": ("blocks.0.attention.qkv.weight.trits", 0, 250),
        "finite and above 0": ("blocks.0.attention.qkv.weight.scale", (), -1.0),
    }
    for message, (name, place, value) in changes.items():
        damaged = {n: v.clone() for n, v in tensors.items()}
        damaged[name][place] = value
        save_file(damaged, other, as_metadata(about))
        with pytest.raises(ValueError, match=message):
            load_model(other)
    save_file({n: v for n, v in tensors.items() if n != "head.weight"}, other, as_metadata(about))
    with pytest.raises(ValueError, match=r"other parameters: head\.weight"):
        load_model(other)
    narrow = about["model"] | {"width": 16}
    save_file(tensors, other, as_metadata(about | {"model": narrow}))
    with pytest.raises(ValueError, match="instead of"):
        load_model(other)
    newer = about["model"] | {"unheard_of": 30.0}
    save_file(tensors, other, as_metadata(about | {"model": newer}))
    with pytest.raises(ValueError, match="has no field unheard_of"):
        load_model(other)
