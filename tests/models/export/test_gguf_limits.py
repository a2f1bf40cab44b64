"""What GGUF can't hold as asked for falls back with a sentence, or is refused with one."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from small_models import llama, quantized

from foretune.models import TransformerConfig, ViTConfig
from foretune.models.export.gguf_file import save_gguf
from foretune.models.export.save import load_model
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.statistics import ternary_layers

torch.set_num_threads(1)


TERNARY = Quantization(format="ternary")
WEIGHTS_ALONE = Quantization(format="ternary", activations="off", scale_dtype="float32")


def save(path, model, config=None, quantization=TERNARY, **options):
    return save_gguf(path, model, config or llama(), quantization, **options)


FALLBACKS = {
    "rows of 64": (llama(64), {}, Type.Q8_0, "its rows have 64 weights, and TQ1_0 needs multiples"),
    "rows of 48": (llama(48), {}, Type.F16, "widths in steps of 256 pack every tensor"),
    "groups": (llama(), {"granularity": "group"}, Type.Q8_0, "scale changes inside blocks of 256"),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_what_cannot_be_packed_falls_back_and_says_so(tmp_path, tokens, name):
    """Another type, the same trits: logits of the loaded model as near as elsewhere."""
    config, options, type, reason = FALLBACKS[name]
    quantization = Quantization(format="ternary", activations="off", **options)
    model = quantized(config, quantization)
    path = tmp_path / "m.gguf"
    written = save(path, model, config, quantization)
    types = {t.name: t.tensor_type for t in GGUFReader(path).tensors}
    assert {t for n, t in types.items() if n.startswith("blk") and "norm" not in n} == {type}
    assert any(
        reason in s and f"stored as {type.name} instead of TQ1_0" in s for s in written.sentences
    )
    assert (written.size.ternary_weights, written.size.ternary_bytes) == (0, 0)
    assert written.size.fallback_weights == sum(
        w.levels.numel() for w in ternary_layers(model).values()
    )
    with torch.no_grad():
        logits, loaded = model(tokens), load_model(path)(tokens)
    assert (loaded - logits).abs().max() < 1e-3 * logits.abs().max()


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "row"},
        {"granularity": "group", "group_size": 256},
        {"scale": "median", "head": True, "embedding": True},
    ],
    ids=str,
)
def test_scales_per_row_or_block_and_ternary_heads_are_packed(tmp_path, tokens, options):
    quantization = Quantization(format="ternary", activations="off", **options)
    model = quantized(llama(), quantization)
    written = save(tmp_path / "m.gguf", model, quantization=quantization)
    assert (written.sentences, written.size.fallback_weights) == ((), 0)
    with torch.no_grad():
        logits, loaded = model(tokens), load_model(tmp_path / "m.gguf")(tokens)
    assert (loaded - logits).abs().max() < 1e-3 * logits.abs().max()


def test_scales_beyond_fp16_are_kept_in_fp32(tmp_path, tokens):
    """Below 6e-5 fp16 loses digits; a sentence says that the tensor isn't packed."""
    model = quantized(llama(), WEIGHTS_ALONE)
    with torch.no_grad():
        model.get_submodule("blocks.1.mlp.mlp_out").weight.mul_(1.7e-5 / 0.029)
    written = save(tmp_path / "m.gguf", model, quantization=WEIGHTS_ALONE)
    (sentence,) = written.sentences
    assert sentence.startswith("blk.1.ffn_down.weight: stored as F32 instead of TQ1_0")
    with torch.no_grad():
        logits, loaded = model(tokens), load_model(tmp_path / "m.gguf")(tokens)
    assert (loaded - logits).abs().max() < 1e-3 * logits.abs().max()


def test_rest_in_fp16_but_for_norms_and_what_is_too_large(tmp_path):
    path = tmp_path / "m.gguf"
    full = save(path, quantized(llama(), TERNARY)).size
    half = save(path, quantized(llama(), TERNARY), rest_dtype="fp16").size
    norms = 4 * 256 * 5
    assert half.full_bytes - norms == (full.full_bytes - norms) // 2
    assert {t.tensor_type for t in GGUFReader(path).tensors if "norm" in t.name} == {Type.F32}
    model = quantized(llama(), TERNARY)
    with torch.no_grad():
        model.head.weight[3, 4] = 1e5
    (sentence,) = save(path, model, rest_dtype="fp16").sentences
    assert sentence.startswith("output.weight: stored as F32 instead of F16, since it holds values")
    with pytest.raises(ValueError, match="rest_dtype must be one of fp32, fp16, got 'bf16'"):
        save(path, model, rest_dtype="bf16")


REFUSED = {
    "norm": (
        TransformerConfig(width=32),
        TERNARY,
        r"needs the Llama block \(model\.norm=rmsnorm model\.mlp=swiglu model\.qk_norm=False\), "
        r"got model\.norm=layernorm, model\.mlp=gelu; train with model\.norm=rmsnorm "
        r"model\.mlp=swiglu, or export as safetensors",
    ),
    "qk_norm": (
        llama(32, qk_norm=True),
        TERNARY,
        r"got model\.qk_norm=True; train with model\.qk_norm=False",
    ),
    "norms in layers": (
        llama(32),
        Quantization(format="ternary", norm=True),
        r"needs quantization\.norm=False, got True",
    ),
    "images": (ViTConfig(), TERNARY, r"serves model\.kind=transformer with .*, got vit; export it"),
    "int8": (llama(32), Quantization(format="int8"), r"format=ternary or binary, got Integer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_no_ternary_llama_are_refused(tmp_path, name):
    config, quantization, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "m.gguf", quantized(config, quantization), config, quantization)
    assert list(tmp_path.iterdir()) == []


def test_models_changed_after_they_were_built_are_refused(tmp_path):
    config = llama(32)
    model = quantized(config, TERNARY)
    model.blocks[1].attention.tap.scale = 1 / 16
    with pytest.raises(ValueError, match=r"attention scale 1/sqrt\(head_dim\), got 0\.0625 in lay"):
        save(tmp_path / "m.gguf", model, config)
    model = quantized(config, TERNARY)
    model.register_buffer("more", torch.zeros(1))
    with pytest.raises(ValueError, match="got a model that differs in more"):
        save(tmp_path / "m.gguf", model, config)


def test_files_that_are_not_ours_are_refused(tmp_path):
    path, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    save(path, quantized(llama(), TERNARY))
    with pytest.raises(ValueError, match="must be a file, and isn't there"):
        load_model(other)
    for content in (b"", b"GGUF", path.read_bytes()[:-5000], b"\x00" * 100):
        other.write_bytes(content)
        with pytest.raises(ValueError, match="must be a GGUF file, got a damaged one"):
            load_model(other)
    writer = gguf.GGUFWriter(other, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"that foretune wrote \(version 1\), got version None"):
        load_model(other)
