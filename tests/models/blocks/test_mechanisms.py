"""Each mechanism of a block against formulas written down again, for tokens and for images.

Shapes: B samples, T positions, D width, H heads, K head dimension.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import built, samples
from torch import Tensor, nn

from foretune.models import TransformerConfig, ViTConfig

torch.set_num_threads(1)

LM = TransformerConfig(width=16, depth=2, head_dim=8, vocab_size=11, max_positions=7)
VIT = ViTConfig(width=16, depth=2, head_dim=8, image_size=12, patch_size=4)
BASES = {"lm": LM, "vit": VIT}
MECHANISMS: dict[str, dict[str, Any]] = {
    "qk-norm-width": {"qk_norm": True, "qk_norm_span": "width"},
    "v-norm": {"v_norm": True},
    "qkv-norm": {"qk_norm": True, "v_norm": True},
    "relu2": {"attention": "relu2"},
    "linear-scale": {"attention_scale": "linear"},
    "attention-softcap": {"attention_softcap": 0.7},
    "logit-softcap": {"logit_softcap": 0.8},
    "kappa": {"kappa": 9.0},
    "post": {"norm_placement": "post"},
    "reordered": {"norm_placement": "reordered"},
    "sigma": {"sigma_reparam": True},
    "many": {
        "qk_norm": True, "qk_norm_span": "width", "v_norm": True, "attention_scale": "linear",
        "attention_softcap": 0.3, "logit_softcap": 1.0, "norm_placement": "reordered",
        "sigma_reparam": True,
    },
    "others": {"kappa": 4.0, "attention": "relu2", "norm_placement": "post"},
}  # fmt: skip
CASES = [(f"{kind}-{name}", replace(base, **fields)) for kind, base in BASES.items()
         for name, fields in MECHANISMS.items()]  # fmt: skip
LLAMA = {"norm": "rmsnorm", "mlp": "swiglu"}
CASES += [(f"llama-{name}", replace(LM, **LLAMA, **MECHANISMS[name])) for name in ("many", "post")]
each = pytest.mark.parametrize("config", [c for _, c in CASES], ids=[name for name, _ in CASES])


def build(config: Any) -> nn.Module:
    """A model in evaluation whose gains are not 1 and whose logits aren't small."""
    model = built(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "gain" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "blocks" in name:
                parameter.mul_(1.5)
    return model


def plain(config: Any) -> Any:
    """The config without its mechanisms."""
    if isinstance(config, TransformerConfig):
        return replace(LM, norm=config.norm, mlp=config.mlp)
    return VIT


def layer_norm(x: Tensor, gain: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


class Reference:
    """Logits in float64 from a model's state by name; one head of one sample at a time."""

    def __init__(self, w: dict[str, Tensor], config: Any):
        self.w, self.config = w, config
        self.tokens = isinstance(config, TransformerConfig)

    def __call__(self, x: Tensor) -> Tensor:
        w, config = self.w, self.config
        if self.tokens:
            x_BTD = w["embedding.weight"][x]
        else:
            patches = x.double().unfold(2, 4, 4).unfold(3, 4, 4).reshape(3, 9, 16)
            x_BTD = patches @ w["patch_embedding.weight"].flatten(1).T + w["position_embedding"]
        for layer in range(config.depth):
            b = f"blocks.{layer}."
            x_BTD = self.branch(x_BTD, b + "attention_norm", lambda h, b=b: self.attention(h, b))
            x_BTD = self.branch(x_BTD, b + "mlp_norm", lambda h, b=b: self.mlp(h, b))
        if not self.tokens:
            x_BTD = x_BTD.mean(1)
        logits = self.norm(x_BTD, "final_norm") @ w["head.weight"].T
        t = config.logit_softcap
        return t * torch.tanh(logits / t) if t else logits

    def branch(self, x: Tensor, norm: str, f: Any) -> Tensor:
        if self.config.norm_placement == "pre":
            return x + f(self.norm(x, norm))
        if self.config.norm_placement == "post":
            return self.norm(x + f(x), norm)
        return x + self.norm(f(x), norm)

    def norm(self, x: Tensor, name: str) -> Tensor:
        gain = self.w[name + ".weight"]
        if getattr(self.config, "norm", "layernorm") == "rmsnorm":
            return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
        return layer_norm(x, gain)

    def matrix(self, name: str) -> Tensor:
        weight = self.w[name + ".weight"]
        if not self.config.sigma_reparam:
            return weight
        sigma = torch.linalg.svdvals(weight)[0]
        return self.w[name + ".sigma_gain.weight"] * weight / sigma

    def mlp(self, h: Tensor, b: str) -> Tensor:
        up = h @ self.matrix(b + "mlp.mlp_in").T
        if b + "mlp.mlp_gate.weight" in self.w:
            gate = h @ self.matrix(b + "mlp.mlp_gate").T
            return (up * gate * torch.sigmoid(gate)) @ self.matrix(b + "mlp.mlp_out").T
        return (0.5 * up * (1 + torch.erf(up / 2**0.5))) @ self.matrix(b + "mlp.mlp_out").T

    def attention(self, h_BTD: Tensor, b: str) -> Tensor:
        rows = []
        for h_TD in h_BTD:
            q, k, v = (h_TD @ part.T for part in self.matrix(b + "attention.qkv").chunk(3))
            if self.config.qk_norm and self.config.qk_norm_span == "width":
                q = layer_norm(q, self.w[b + "attention.q_norm.weight"])
                k = layer_norm(k, self.w[b + "attention.k_norm.weight"])
            heads = [self.head(*(x[:, i : i + 8] for x in (q, k, v)), b) for i in (0, 8)]
            rows.append(torch.cat(heads, 1) @ self.matrix(b + "attention.attention_out").T)
        return torch.stack(rows)

    def head(self, q: Tensor, k: Tensor, v: Tensor, b: str) -> Tensor:
        config = self.config
        if config.qk_norm and config.qk_norm_span == "head":
            q = layer_norm(q, self.w[b + "attention.q_norm.weight"])
            k = layer_norm(k, self.w[b + "attention.k_norm.weight"])
        if config.v_norm:
            v = layer_norm(v, self.w[b + "attention.v_norm.weight"])
        if config.kappa:
            q, k = (math.sqrt(config.kappa) * z / z.square().mean(1, keepdim=True).sqrt()
                    for z in (q, k))  # fmt: skip
        if self.tokens:
            q, k = rotate(q), rotate(k)
        logits = q @ k.T / (8 if config.attention_scale == "linear" else 8**0.5)
        if t := config.attention_softcap:
            logits = t * torch.tanh(logits / t)
        seen = torch.ones_like(logits).tril() if self.tokens else torch.ones_like(logits)
        if config.attention == "relu2":
            return (logits.clamp(min=0) ** 2 * seen / len(q) ** 0.5) @ v
        weights = torch.exp(logits - logits.amax()) * seen
        return weights / weights.sum(1, keepdim=True) @ v


def rotate(x_TK: Tensor) -> Tensor:
    """Turns the pair (2i, 2i + 1) at position t by t / 10000^(2i/K)."""
    t = torch.arange(len(x_TK), dtype=torch.float64)[:, None]
    angle = t / 10000 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turned = torch.view_as_complex(x_TK.reshape(-1, 4, 2)) * torch.polar(angle * 0 + 1, angle)
    return torch.view_as_real(turned).flatten(1)


@each
def test_logits_and_gradients_equal_those_of_the_formulas(config):
    model, x = build(config), samples(config)
    weights = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}
    logits, expected = model(x), Reference(weights, config)(x)
    assert expected.std() > 0.05
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=2e-5)
    targets = torch.arange(logits[..., 0].numel()) % logits.shape[-1]
    F.cross_entropy(logits.flatten(0, -2), targets).backward()
    F.cross_entropy(expected.flatten(0, -2), targets).backward()
    for name, parameter in model.named_parameters():
        got, want = parameter.grad, weights[name].grad
        assert got is not None, name
        assert want is not None, name
        assert float(want.norm()) > 0, name
        # Absolute where norms divide a gain out again, so that its gradient is all but zero.
        assert float((got.double() - want).norm()) < 2e-4 * float(want.norm()) + 2e-7, name


@each
def test_every_mechanism_changes_the_model(config):
    """In what the reference agrees with, the plain model doesn't."""
    x = samples(config)
    with torch.no_grad():
        difference = (build(config)(x) - build(plain(config))(x)).abs().max()
    assert difference > 1e-2


@each
def test_a_mechanism_leaves_the_draws_of_all_weights_alone(config):
    torch.manual_seed(3)
    model = config.build()
    after = torch.rand(1)
    torch.manual_seed(3)
    without = plain(config).build()
    assert torch.equal(torch.rand(1), after)
    own = model.state_dict()
    for name, value in without.state_dict().items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize("name", MECHANISMS)
def test_no_token_sees_a_later_one(name):
    config = replace(LM, **MECHANISMS[name])
    model, x = build(config), samples(config)
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % 11
    with torch.no_grad():
        difference = (model(x) - model(changed)).abs().amax((0, 2))
    assert difference[:4].max() < 1e-6
    assert difference[4:].min() > 1e-4
