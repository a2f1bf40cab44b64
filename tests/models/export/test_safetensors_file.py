"""A ternary safetensors file holds the trained model: same logits, stated size, readable alone."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import quantized
from torch import nn

from foretune.models import ConvNetConfig, TransformerConfig, ViTConfig
from foretune.models.export import reference_decoder
from foretune.models.export.safetensors_file import read_ternary, save_ternary
from foretune.models.export.save import load_model
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.scales import dequantize
from foretune.models.quantization.statistics import ternary_layers

torch.set_num_threads(1)

LM = TransformerConfig(width=32, depth=2, head_dim=8, max_positions=32)
TERNARY = Quantization(format="ternary")
VARIANTS = {
    "mean": TERNARY,
    "median, rows": Quantization(format="ternary", scale="median", granularity="row"),
    "groups": Quantization(format="ternary", granularity="group", group_size=16),
    "all layers, norm": Quantization(format="ternary", head=True, embedding=True, norm=True),
    "weights alone": Quantization(format="ternary", activations="off"),
    "binary": Quantization(format="binary"),
}


@pytest.mark.parametrize("packing", ["base3", "2bit"])
@pytest.mark.parametrize("name", VARIANTS)
def test_loaded_model_gives_the_trained_models_logits(tmp_path, train_few, tokens, name, packing):
    model = train_few(LM, VARIANTS[name])
    path = tmp_path / "m.safetensors"
    save_ternary(path, model, LM, VARIANTS[name], packing_name=packing)
    with torch.no_grad():
        torch.testing.assert_close(load_model(path)(tokens), model(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "config", [ViTConfig(image_size=16), ConvNetConfig(image_size=16)], ids=["vit", "convnet"]
)
def test_vision_models_too(tmp_path, config):
    model = quantized(config, TERNARY)
    path = tmp_path / "m.safetensors"
    save_ternary(path, model, config, TERNARY)
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(load_model(path)(images), model(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("packing", "per_byte"), [("base3", 5), ("2bit", 4)])
@pytest.mark.parametrize("name", ["mean", "groups"])
def test_file_takes_what_it_says(tmp_path, packing, per_byte, name):
    """ceil(n / 5 or 4) bytes a ternary tensor, 4 a scale, 4 a value of the rest, and the header."""
    model = quantized(LM, VARIANTS[name])
    path = tmp_path / "m.safetensors"
    size = save_ternary(path, model, LM, VARIANTS[name], packing_name=packing)
    layers = ternary_layers(model)
    trits = [w.levels.numel() for w in layers.values()]
    scales = sum(w.scale.numel() for w in layers.values())
    full = sum(p.numel() for p in model.parameters()) - sum(trits)
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert size.ternary_bytes == sum(-(-n // per_byte) for n in trits) + 4 * scales
    assert size.full_bytes == 4 * full
    assert size.file_bytes == path.stat().st_size
    assert size.file_bytes == header + size.ternary_bytes + size.full_bytes
    assert size.header_bytes == header
    assert (size.ternary_weights, size.full_weights) == (sum(trits), full)
    assert size.fp32_bytes == 4 * (sum(trits) + full)


def test_rest_in_bf16_takes_half(tmp_path, tokens):
    model = quantized(LM, TERNARY)
    path = tmp_path / "m.safetensors"
    full = save_ternary(path, model, LM, TERNARY)
    half = save_ternary(path, model, LM, TERNARY, rest_dtype="bf16")
    assert (half.full_bytes, half.ternary_bytes) == (full.full_bytes // 2, full.ternary_bytes)
    file = read_ternary(path)
    assert all(v.dtype == torch.float32 for v in file.parts.rest.values())
    rounded = model.state_dict()["head.weight"].bfloat16().float()
    assert torch.equal(file.parts.rest["head.weight"], rounded)
    assert load_model(path)(tokens).dtype == torch.float32
    for name, (_, scale) in ternary_layers(model).items():
        assert torch.equal(file.parts.ternary[name].scale, scale), "scales stay fp32"
    with pytest.raises(ValueError, match="rest_dtype must be one of fp32, bf16, got 'fp16'"):
        save_ternary(path, model, LM, TERNARY, rest_dtype="fp16")


def test_reader_returns_trits_scales_and_the_rest(tmp_path):
    model = quantized(LM, VARIANTS["groups"])
    path = tmp_path / "m.safetensors"
    facts = {"run_id": "abc", "val_loss": 1.25, "steps": 8}
    save_ternary(path, model, LM, VARIANTS["groups"], packing_name="2bit", facts=facts)
    file = read_ternary(path)
    assert (file.packing, file.quantization, file.facts) == ("2bit", VARIANTS["groups"], facts)
    assert file.model["kind"] == "transformer"
    layers = ternary_layers(model)
    assert file.parts.ternary.keys() == layers.keys()
    for name, (levels, scale) in layers.items():
        assert torch.equal(file.parts.ternary[name].levels, levels)
        assert torch.equal(file.parts.ternary[name].scale, scale)
        assert file.parts.ternary[name].scale.dtype == torch.float32
    weights = {f"{name}.weight" for name in layers}
    assert file.parts.rest.keys() == model.state_dict().keys() - weights


def test_trap_trits_are_never_made_of_trits(tmp_path, tokens):
    """Quantized a second time by the mean, the scale shrinks to the share that isn't zero, ~0.69;
    a loaded model keeps its own, so exporting it again writes the same file."""
    model = quantized(LM, TERNARY)
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_ternary(first, model, LM, TERNARY)
    loaded = load_model(first)
    save_ternary(second, loaded, LM, TERNARY)
    assert first.read_bytes() == second.read_bytes()

    again = quantized(LM, TERNARY)
    values = {f"{n}.weight": dequantize(*w) for n, w in ternary_layers(model).items()}
    again.load_state_dict(loaded.state_dict() | values)
    ratios = [
        float(ternary_layers(again)[n].scale / w.scale) for n, w in ternary_layers(model).items()
    ]
    assert all(0.6 < ratio < 0.8 for ratio in ratios)
    with torch.no_grad():
        assert (again(tokens) - model(tokens)).abs().max() > 0.05
        assert torch.equal(loaded(tokens), model(tokens))


def test_loaded_weights_stand_still(tmp_path, tokens):
    """Modes, a copy by another dtype and back, and refreshes change nothing; nothing trains."""
    model = quantized(LM, TERNARY)
    path = tmp_path / "m.safetensors"
    save_ternary(path, model, LM, TERNARY)
    loaded = load_model(path)
    assert not loaded.training
    ternary = {f"{n}.weight" for n in ternary_layers(model)}
    for name, parameter in loaded.named_parameters():
        assert parameter.requires_grad == (name not in ternary)
    with torch.no_grad():
        before = loaded(tokens)
        assert torch.equal(loaded.train().eval()(tokens), before)
        for parameter in loaded.parameters():
            if not parameter.requires_grad:
                parameter.mul_(3)
        assert torch.equal(loaded(tokens), before), "the file's scale, not one of the parameter"


@pytest.mark.parametrize("rest_dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["mean", "median, rows", "groups"])
def test_numpy_reads_the_file_without_torch(tmp_path, name, rest_dtype):
    """The reference decoder as a file of its own, in a process that can import neither torch nor
    safetensors."""
    model = quantized(LM, VARIANTS[name])
    path = tmp_path / "m.safetensors"
    save_ternary(path, model, LM, VARIANTS[name], rest_dtype=rest_dtype)
    script = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[1])\n"
        "sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "import reference_decoder\n"
        "np.savez(sys.argv[3], **reference_decoder.decode(sys.argv[2])[1])\n"
    )
    folder = Path(reference_decoder.__file__).parent
    copy = tmp_path / "alone"
    copy.mkdir()
    (copy / "reference_decoder.py").write_bytes((folder / "reference_decoder.py").read_bytes())
    output = tmp_path / "decoded.npz"
    command = [sys.executable, "-c", script, str(copy), str(path), str(output)]
    subprocess.run(command, check=True)
    decoded = np.load(output)
    expected = dict(model.state_dict())
    if rest_dtype == "bf16":
        expected = {n: v.bfloat16().float() for n, v in expected.items()}
    expected |= {f"{n}.weight": dequantize(*w) for n, w in ternary_layers(model).items()}
    assert set(decoded) == set(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(decoded[key], value.numpy(), strict=True)


class Twice(nn.Module):
    """One layer in two places, with a buffer of integers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = self.first
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@dataclass(frozen=True)
class TwiceConfig:
    def build(self):
        return Twice()


def test_models_of_the_users_own_need_their_config(tmp_path):
    """A layer in two places is stored once; biases and integer buffers survive."""
    config = TwiceConfig()
    quantization = replace(TERNARY, head=True)
    model = quantized(config, quantization)
    path = tmp_path / "m.safetensors"
    size = save_ternary(path, model, config, quantization)
    assert (size.ternary_weights, size.full_weights) == (64, 8 + 1)
    with pytest.raises(ValueError, match=r"got '.*:TwiceConfig'; pass its config to load_model"):
        load_model(path)
    loaded = load_model(path, config)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), model(x))
    assert loaded.count == 3
