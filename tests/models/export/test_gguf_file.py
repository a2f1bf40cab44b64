"""A GGUF file holds the trained trits under llama's names, and says what it couldn't pack."""

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from small_models import llama, quantized

from foretune.models.export.byte_tokens import byte_characters
from foretune.models.export.gguf_file import save_gguf
from foretune.models.export.save import load_model
from foretune.models.export.ternary_model import TernaryParts, rebuild, take_apart
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.statistics import TernaryWeight, ternary_layers

torch.set_num_threads(1)


TERNARY = Quantization(format="ternary", scale_dtype="float32")
WEIGHTS_ALONE = Quantization(format="ternary", activations="off", scale_dtype="float32")
PACKED = {"base3": Type.TQ1_0, "2bit": Type.TQ2_0}

both = pytest.mark.parametrize("packing", PACKED)


@pytest.fixture(scope="module")
def trained(train_few):
    return train_few(llama(), TERNARY)


@pytest.fixture(scope="module")
def trained_weights_alone(train_few):
    return train_few(llama(), WEIGHTS_ALONE)


def save(path, model, config=None, quantization=TERNARY, **options):
    return save_gguf(path, model, config or llama(), quantization, **options)


def read(path):
    """Tensors by name, as gguf's own code decodes them."""
    tensors = GGUFReader(path).tensors
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in tensors}


@both
def test_every_tensor_has_llamas_name_type_and_shape(tmp_path, trained, packing):
    save(tmp_path / "m.gguf", trained, packing_name=packing)
    found = {
        t.name: (t.tensor_type, tuple(t.shape)) for t in GGUFReader(tmp_path / "m.gguf").tensors
    }
    trits, full = PACKED[packing], Type.F32
    # GGUF gives the length of a row first.
    expected = {
        "token_embd.weight": (full, (256, 256)),
        "output.weight": (full, (256, 256)),
        "output_norm.weight": (full, (256,)),
    }
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            expected[f"blk.{layer}.{name}.weight"] = (trits, (256, 256))
        for name in ("ffn_gate", "ffn_up"):
            expected[f"blk.{layer}.{name}.weight"] = (trits, (256, 768))
        expected[f"blk.{layer}.ffn_down.weight"] = (trits, (768, 256))
        for name in ("attn_norm", "ffn_norm"):
            expected[f"blk.{layer}.{name}.weight"] = (full, (256,))
    assert found == expected


@both
def test_trits_are_the_trained_ones_and_scales_their_fp16(tmp_path, trained, packing):
    save(tmp_path / "m.gguf", trained, packing_name=packing)
    tensors = read(tmp_path / "m.gguf")
    for name, (levels, scale) in ternary_layers(trained).items():
        _, layer, _, kind = name.split(".")
        names = {
            "qkv": ("attn_q", "attn_k", "attn_v"),
            "attention_out": ("attn_output",),
            "mlp_gate": ("ffn_gate",),
            "mlp_in": ("ffn_up",),
            "mlp_out": ("ffn_down",),
        }[kind]
        value = np.concatenate([tensors[f"blk.{layer}.{n}.weight"] for n in names])
        np.testing.assert_array_equal(np.sign(value), levels.numpy())
        np.testing.assert_array_equal(value, levels.numpy() * scale.half().float().numpy())


def test_trap_latent_weights_would_get_other_trits(trained):
    """The type scales by a block's largest weight: fed with what the optimizer holds, more than a
    third of the trits would be others."""
    name, (levels, _) = next(iter(ternary_layers(trained).items()))
    latent = trained.get_submodule(name).weight.detach().numpy()
    naive = gguf.quants.dequantize(gguf.quants.quantize(latent, Type.TQ1_0), Type.TQ1_0)
    assert (np.sign(naive) != levels.numpy()).mean() > 1 / 3


@both
def test_loaded_model_is_the_trained_one_with_scales_in_fp16(tmp_path, trained, tokens, packing):
    """To the bit, activations in int8 as in training."""
    save(tmp_path / "m.gguf", trained, packing_name=packing)
    parts = take_apart(trained)
    rounded = {
        n: TernaryWeight(levels, scale.half().float())
        for n, (levels, scale) in parts.ternary.items()
    }
    expected = rebuild(llama(), TERNARY, TernaryParts(ternary=rounded, rest=parts.rest))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "m.gguf")(tokens), expected(tokens))


@both
def test_rounding_the_scales_moves_logits_by_a_thousandth(
    tmp_path, trained_weights_alone, tokens, packing
):
    """Of the largest logit, with activations as they are."""
    model = trained_weights_alone
    save(tmp_path / "m.gguf", model, quantization=WEIGHTS_ALONE, packing_name=packing)
    with torch.no_grad():
        logits, loaded = model(tokens), load_model(tmp_path / "m.gguf")(tokens)
    assert (loaded - logits).abs().max() < 1e-3 * logits.abs().max()


def test_int8_activations_enlarge_that_rounding_but_not_the_loss(tmp_path, trained, tokens):
    """Any change of an activation, 1e-7 of it even, can move it to the next of 255 levels. So the
    logits differ by what a level is worth: 1 % of their size, and the loss by 1e-3 nats at most."""
    save(tmp_path / "m.gguf", trained)
    with torch.no_grad():
        logits, loaded = trained(tokens), load_model(tmp_path / "m.gguf")(tokens)
    assert (loaded - logits).square().mean().sqrt() < 0.01 * logits.square().mean().sqrt()
    targets = tokens[:, 1:].flatten()
    losses = [F.cross_entropy(z[:, :-1].flatten(0, 1), targets) for z in (logits, loaded)]
    assert abs(losses[0] - losses[1]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize("format", ["ternary", "binary"])
def test_a_model_trained_with_fp16_scales_is_read_back_to_the_bit(
    tmp_path, train_few, tokens, granularity, format
):
    """As they are by default: nothing is left for the file to round, int8 activations and all."""
    fp16 = Quantization(format=format, granularity=granularity)
    model = train_few(llama(), fp16)
    with torch.no_grad():
        logits = model(tokens)
        for packing in PACKED:
            path = tmp_path / f"{packing}.gguf"
            save(path, model, quantization=fp16, packing_name=packing)
            assert torch.equal(load_model(path)(tokens), logits), packing


def llama_logits(path, tokens_T):
    """Llama's forward pass in numpy from a file alone, written from llama.cpp's graph."""
    fields = {n: f.contents() for n, f in GGUFReader(path).fields.items()}
    tensors = {n: t.astype(np.float64) for n, t in read(path).items()}
    heads = fields["llama.attention.head_count"]
    epsilon = fields["llama.attention.layer_norm_rms_epsilon"]
    turned, base = fields["llama.rope.dimension_count"], fields["llama.rope.freq_base"]

    def norm(x, name):
        rms = np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
        return x / rms * tensors[f"{name}.weight"]

    def rope(x_THK):
        angle = np.outer(np.arange(len(x_THK)), base ** (-np.arange(0, turned, 2) / turned))
        pairs = x_THK[..., ::2] + 1j * x_THK[..., 1::2]
        pairs = pairs * np.exp(1j * angle)[:, None]
        return np.stack((pairs.real, pairs.imag), -1).reshape(x_THK.shape)

    x_TD = tensors["token_embd.weight"][tokens_T]
    for layer in range(fields["llama.block_count"]):
        weight = {n.split(".")[2]: t.T for n, t in tensors.items() if n.startswith(f"blk.{layer}.")}
        h_TD = norm(x_TD, f"blk.{layer}.attn_norm")
        q, k, v = (
            (h_TD @ weight[n]).reshape(len(x_TD), heads, -1) for n in ("attn_q", "attn_k", "attn_v")
        )
        s_HTT = np.einsum("qhd,khd->hqk", rope(q), rope(k))
        s_HTT = s_HTT / np.sqrt(q.shape[-1]) + np.triu(np.full(s_HTT.shape[1:], -np.inf), 1)
        p_HTT = np.exp(s_HTT - s_HTT.max(-1, keepdims=True))
        y_THK = np.einsum("hqk,khd->qhd", p_HTT / p_HTT.sum(-1, keepdims=True), v)
        x_TD = x_TD + y_THK.reshape(x_TD.shape) @ weight["attn_output"]
        h_TD = norm(x_TD, f"blk.{layer}.ffn_norm")
        gate = h_TD @ weight["ffn_gate"]
        x_TD = x_TD + (gate / (1 + np.exp(-gate)) * (h_TD @ weight["ffn_up"])) @ weight["ffn_down"]
    return norm(x_TD, "output_norm") @ tensors["output.weight"].T


def test_llama_as_another_program_computes_it_is_our_model(tmp_path, trained_weights_alone, tokens):
    path = tmp_path / "m.gguf"
    save(path, trained_weights_alone, quantization=WEIGHTS_ALONE)
    with torch.no_grad():
        ours = load_model(path)(tokens[:1])[0].numpy()
    np.testing.assert_allclose(llama_logits(path, tokens[0].numpy()), ours, rtol=0, atol=2e-5)


def test_metadata_is_what_llama_cpp_asks_for(tmp_path, trained):
    path = tmp_path / "m.gguf"
    save(path, trained, packing_name="2bit", facts={"run_id": "abc"})
    fields = {n: f.contents() for n, f in GGUFReader(path).fields.items()}
    expected = {
        "general.architecture": "llama",
        "general.file_type": 37,
        "llama.vocab_size": 256,
        "llama.context_length": 32,
        "llama.embedding_length": 256,
        "llama.block_count": 2,
        "llama.feed_forward_length": 768,
        "llama.attention.head_count": 16,
        "llama.attention.head_count_kv": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-6),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.eos_token_id": 255,
        "foretune.facts": '{"run_id": "abc"}',
    }
    assert {name: fields[name] for name in expected} == expected
    assert fields["tokenizer.ggml.tokens"] == byte_characters()


def test_byte_tokens_are_gpt2s_characters():
    characters = byte_characters()
    assert len(set(characters)) == 256
    assert all(len(c) == 1 and c.isprintable() for c in characters)
    assert "".join(characters[b] for b in b"A b\n\t\x00") == "AĠbĊĉĀ"
    assert characters[ord("~")] == "~"
    assert characters[0xFF] == "ÿ"


def test_another_vocabulary_has_no_tokenizer(tmp_path):
    config = llama(vocab_size=100)
    save(tmp_path / "m.gguf", quantized(config, TERNARY), config)
    fields = {n: f.contents() for n, f in GGUFReader(tmp_path / "m.gguf").fields.items()}
    assert (fields["tokenizer.ggml.model"], fields["llama.vocab_size"]) == ("none", 100)
    assert "tokenizer.ggml.tokens" not in fields


@both
def test_size_is_that_of_the_tensors_and_the_file(tmp_path, trained, packing):
    path = tmp_path / "m.gguf"
    size = save(path, trained, packing_name=packing).size
    tensors = GGUFReader(path).tensors
    packed = [t for t in tensors if t.tensor_type == PACKED[packing]]
    assert size.ternary_bytes == sum(t.n_bytes for t in packed)
    assert size.ternary_weights == sum(t.n_elements for t in packed)
    assert size.full_bytes == sum(t.n_bytes for t in tensors) - size.ternary_bytes
    assert size.file_bytes == path.stat().st_size
    bits = 8 * size.ternary_bytes / size.ternary_weights
    assert bits == {"base3": 1.6875, "2bit": 2.0625}[packing]
