"""One door to both formats, and the report of what a file takes."""

import pytest
import torch

from foretune.models import TransformerConfig
from foretune.models.export.save import FORMATS, Exported, export_model, load_model
from foretune.models.export.size import ExportSize
from foretune.models.quantization.config import Quantization

torch.set_num_threads(1)

LLAMA = TransformerConfig(width=256, depth=1, head_dim=32, norm="rmsnorm", mlp="swiglu")
TERNARY = Quantization(format="ternary")


@pytest.mark.parametrize("packing", ["base3", "2bit"])
@pytest.mark.parametrize("format", FORMATS)
def test_both_formats_hold_the_model(tmp_path, train_few, tokens, format, packing):
    model = train_few(LLAMA, TERNARY)
    path = tmp_path / "deeper" / f"model.{format}"
    exported = export_model(path, model, LLAMA, TERNARY, format=format, packing=packing)
    assert exported == Exported(path=path, size=exported.size, sentences=())
    assert exported.size.file_bytes == path.stat().st_size
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, "others may read it"
    with torch.no_grad():
        logits, loaded = model(tokens), load_model(path)(tokens)
    # GGUF rounds scales to fp16, and int8 activations enlarge that.
    tolerance = 1e-5 if format == "safetensors" else 0.01 * float(logits.square().mean().sqrt())
    assert (loaded - logits).square().mean().sqrt() < tolerance


@pytest.mark.parametrize("format", FORMATS)
def test_same_model_same_bytes(tmp_path, train_few, format):
    model = train_few(LLAMA, TERNARY)
    files = [tmp_path / f"{n}.{format}" for n in range(3)]
    for file in files:
        facts = {"run_id": "abc", "seed": 0}
        export_model(file, model, LLAMA, TERNARY, format=format, facts=facts)
    assert len({file.read_bytes() for file in files}) == 1


def test_a_loaded_safetensors_file_becomes_the_same_gguf(tmp_path, train_few):
    model = train_few(LLAMA, TERNARY)
    export_model(tmp_path / "m.safetensors", model, LLAMA, TERNARY)
    loaded = load_model(tmp_path / "m.safetensors")
    for name, source in (("trained", model), ("loaded", loaded)):
        export_model(tmp_path / f"{name}.gguf", source, LLAMA, TERNARY, format="gguf")
    assert (tmp_path / "trained.gguf").read_bytes() == (tmp_path / "loaded.gguf").read_bytes()


def test_names_are_checked(tmp_path, train_few):
    model = train_few(LLAMA, TERNARY)
    with pytest.raises(ValueError, match="format must be one of safetensors, gguf, got 'onnx'"):
        export_model(tmp_path / "m", model, LLAMA, TERNARY, format="onnx")
    for format in FORMATS:
        with pytest.raises(ValueError, match="packing must be one of base3, 2bit, got 'tq1'"):
            export_model(tmp_path / "m", model, LLAMA, TERNARY, format=format, packing="tq1")
    with pytest.raises(ValueError, match=r"must end in \.safetensors or \.gguf"):
        load_model(tmp_path / "model.pt")


def test_report_states_ternary_and_full_precision_bytes_apart():
    size = ExportSize(
        ternary_weights=1000,
        ternary_bytes=204,
        fallback_weights=0,
        fallback_bytes=0,
        full_weights=200,
        full_bytes=800,
        file_bytes=1200,
    )
    assert 8 * size.ternary_bytes / size.ternary_weights == pytest.approx(1.632)
    assert size.bits_per_weight == 8.0
    assert (size.weights, size.fp32_bytes, size.header_bytes) == (1200, 4800, 196)
    assert str(size).splitlines() == [
        "part                       weights         bytes  bits/weight",
        "ternary                      1,000           204       1.6320",
        "full precision                 200           800      32.0000",
        "header                                       196             ",
        "file                         1,200         1,200       8.0000",
        "fp32 would take 4,800 bytes: 4.00x",
    ]
