"""The decoder LM against a second implementation, written from the papers with torch's own parts.

Shapes: B sequences, T positions, D width, H heads, K head dimension, P = K / 2 pairs, V vocabulary.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import gradients, in_float64, samples, with_gains
from torch import Tensor

from foretune.models import TransformerConfig

torch.set_num_threads(1)

CONFIGS = [
    TransformerConfig(width=16, depth=1, head_dim=16, vocab_size=40, max_positions=16),
    TransformerConfig(width=24, depth=2, head_dim=8, vocab_size=40, max_positions=24, qk_norm=True),
    TransformerConfig(width=64, depth=2, head_dim=16, vocab_size=256, max_positions=32),
    TransformerConfig(
        width=64, depth=3, head_dim=32, vocab_size=256, max_positions=32, qk_norm=True
    ),
    TransformerConfig(width=128, depth=2, head_dim=16, vocab_size=256, max_positions=16),
    TransformerConfig(width=64, depth=2, max_positions=32, norm="rmsnorm", mlp="swiglu"),
    TransformerConfig(width=32, depth=1, max_positions=16, norm="rmsnorm", qk_norm=True),
]


def rotate(x_BHTK: Tensor) -> Tensor:
    """Turns the pair (2i, 2i + 1) at position t by t / 10000^(2i/K), with 2 x 2 matrices."""
    positions, head_dim = x_BHTK.shape[-2:]
    matrices_TP22 = torch.empty(positions, head_dim // 2, 2, 2, dtype=torch.float64)
    for t in range(positions):
        for i in range(head_dim // 2):
            angle = t / 10000 ** (2 * i / head_dim)
            c, s = math.cos(angle), math.sin(angle)
            matrices_TP22[t, i] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    pairs = x_BHTK.unflatten(-1, (-1, 2))
    return torch.einsum("tpij,bhtpj->bhtpi", matrices_TP22, pairs).flatten(-2)


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.layer_norm(x, gain.shape, gain, None, 1e-6)


def residual_norm(x: Tensor, gain: Tensor, config: TransformerConfig) -> Tensor:
    if config.norm == "rmsnorm":
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    return norm(x, gain)


def reference(w: dict[str, Tensor], config: TransformerConfig, tokens_BT: Tensor) -> Tensor:
    """Logits in float64 from a model's weights by name."""
    batch, positions = tokens_BT.shape
    future_TT = torch.ones(positions, positions, dtype=torch.bool).triu(1)
    x = w["embedding.weight"][tokens_BT]
    for layer in range(config.depth):
        b = f"blocks.{layer}."
        h = residual_norm(x, w[b + "attention_norm.weight"], config)
        q, k, v = (
            (h @ part.T).view(batch, positions, -1, config.head_dim).transpose(1, 2)
            for part in w[b + "attention.qkv.weight"].chunk(3)
        )
        if config.qk_norm:
            q = norm(q, w[b + "attention.q_norm.weight"])
            k = norm(k, w[b + "attention.k_norm.weight"])
        scores = rotate(q) @ rotate(k).transpose(-1, -2) / math.sqrt(config.head_dim)
        p = scores.masked_fill(future_TT, -math.inf).softmax(-1)
        y = (p @ v).transpose(1, 2).flatten(2)
        x = x + y @ w[b + "attention.attention_out.weight"].T
        normed = residual_norm(x, w[b + "mlp_norm.weight"], config)
        h = normed @ w[b + "mlp.mlp_in.weight"].T
        if config.mlp == "swiglu":
            gate = normed @ w[b + "mlp.mlp_gate.weight"].T
            act = h * gate / (1 + torch.exp(-gate))
        else:
            act = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        x = x + act @ w[b + "mlp.mlp_out.weight"].T
    return residual_norm(x, w["final_norm.weight"], config) @ w["head.weight"].T


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"width{c.width}-qk{c.qk_norm}-{c.norm}")
def test_logits_equal_those_of_an_independent_implementation(config):
    model, inputs = with_gains(config), samples(config)
    with torch.no_grad():
        expected = reference(in_float64(model), config, inputs)
        assert expected.std() > 0.5
        torch.testing.assert_close(model(inputs).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"width{c.width}-qk{c.qk_norm}-{c.norm}")
def test_gradients_equal_those_of_an_independent_implementation(config):
    model, inputs, targets = with_gains(config), samples(config), samples(config, seed=2).flatten()
    F.cross_entropy(model(inputs).flatten(0, 1), targets).backward()
    weights = in_float64(model)
    F.cross_entropy(reference(weights, config, inputs).flatten(0, 1), targets).backward()
    for name, got, expected in gradients(model, weights):
        scale = float(expected.abs().max())
        assert scale > 0, name
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * max(1.0, scale))
        assert float((got - expected).norm() / expected.norm()) < 1e-4, name


def test_attention_with_large_logits_equals_the_independent_implementation():
    config = CONFIGS[2]
    model, inputs = with_gains(config), samples(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv" in name:
                parameter.mul_(4)
        expected = reference(in_float64(model), config, inputs)
        torch.testing.assert_close(model(inputs).double(), expected, rtol=0, atol=5e-4)


def test_a_context_shorter_than_max_positions_sees_the_same_positions():
    config = CONFIGS[2]
    model = with_gains(config)
    inputs = samples(config)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs[:, :11]), model(inputs)[:, :11], rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3]], ids=["plain", "qk_norm"])
def test_changing_a_token_never_changes_logits_before_it(config):
    model, inputs = with_gains(config), samples(config)
    with torch.no_grad():
        before = model(inputs)
        for t in range(config.max_positions):
            changed = inputs.clone()
            changed[:, t] = (changed[:, t] + 1) % config.vocab_size
            after = model(changed)
            assert torch.equal(after[:, :t], before[:, :t])
            assert (after[:, t:] != before[:, t:]).any(-1).all()


def test_positions_matter():
    config = CONFIGS[0]
    with torch.no_grad():
        logits = with_gains(config)(torch.tensor([[1, 2, 3], [2, 1, 3]]))
    assert not torch.allclose(logits[0, -1], logits[1, -1], atol=1e-3)


@pytest.mark.parametrize("width", [64, 128])
def test_initial_weights_have_the_paper_s_distributions(width):
    torch.manual_seed(0)
    model = TransformerConfig(width=width, depth=2, qk_norm=True).build()
    for name, parameter in model.state_dict().items():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
            continue
        # Embedding: rows are vectors of the width. Linear: (outputs, inputs), fan-in is inputs.
        sigma = parameter.shape[1] ** -0.5
        # Standard error of a normal sample's deviation is sigma / sqrt(2 n); five of them.
        tolerance = 5 / math.sqrt(2 * parameter.numel())
        assert float(parameter.std()) == pytest.approx(sigma, rel=tolerance), name
        assert abs(float(parameter.mean())) < 5 * sigma / math.sqrt(parameter.numel()), name
        largest = float(parameter.abs().max()) / sigma
        if name == "embedding.weight":
            assert largest > 3  # A normal isn't cut off.
        else:
            assert 2.2 < largest <= 2 / 0.87962 + 1e-5, name


def test_the_head_is_not_tied_to_the_embedding():
    model = with_gains(CONFIGS[0])
    assert model.head.weight.data_ptr() != model.embedding.weight.data_ptr()
    assert not torch.equal(model.head.weight, model.embedding.weight)


def test_same_seed_same_weights_and_another_seed_others():
    config = CONFIGS[0]
    states = [with_gains(config, seed=s).state_dict() for s in (0, 0, 1)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"width": 40}, "model.width must be a multiple of model.head_dim, got 40 and 16; the "
                        "nearest widths are 32 and 48."),
        ({"width": 8}, "got 8 and 16; the nearest width is 16."),
        ({"head_dim": 7, "width": 14}, "model.head_dim must be even, .* got 7; use 8."),
        ({"depth": 0}, "model.depth must be a whole number from 1 up, got 0."),
        ({"width": 16.0}, "model.width must be a whole number from 1 up, got 16.0."),
        ({"vocab_size": True}, "model.vocab_size must be a whole number from 1 up, got True."),
        ({"max_positions": -1}, "model.max_positions must be a whole number from 1 up, got -1."),
        ({"head_dim": None}, "model.head_dim must be a whole number from 1 up, got None."),
        ({"qk_norm": 1}, "model.qk_norm must be True or False, got 1."),
        ({"norm": "rms"}, "model.norm must be one of layernorm, rmsnorm, got 'rms'."),
        ({"mlp": "relu"}, "model.mlp must be one of gelu, swiglu, got 'relu'."),
    ],
)  # fmt: skip
def test_a_config_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"{sentence}$"):
        TransformerConfig(**fields)


def test_init_gain_scales_the_blocks_linear_layers_and_nothing_else():
    def weights(**options):
        torch.manual_seed(0)
        return dict(TransformerConfig(width=32, depth=2, **options).build().named_parameters())

    plain, gained = weights(), weights(init_gain=1.5)
    same = weights(init_gain=1.0)
    assert all(torch.equal(same[name], parameter) for name, parameter in plain.items())
    for name, parameter in plain.items():
        linear = name.startswith("blocks.") and "norm" not in name
        assert torch.equal(gained[name], parameter * 1.5 if linear else parameter), name


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf"), True, "1"])
def test_an_init_gain_that_is_no_factor_is_refused(gain):
    with pytest.raises(ValueError, match=r"model\.init_gain must be a finite number above 0, got"):
        TransformerConfig(init_gain=gain)
