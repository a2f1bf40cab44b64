"""Every telemetry column against a computation of its own.

Shapes: B sequences, T positions, H heads, K head dimension.
"""

import math
import re
from dataclasses import replace

import pytest
import torch
from probed_models import CONFIG, build, tokens, watch
from torch import Tensor, nn

from foretune.models import Tap
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.config.run import PROBES
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.training.losses import cross_entropy
from foretune.tuner.training.probes import Probes

KINDS = {
    "embedding",
    "attention_norm",
    "qkv",
    "attention_out",
    "mlp_norm",
    "mlp_in",
    "mlp_out",
    "final_norm",
    "head",
}


def brute_force(q_BHTK: Tensor, k_BHTK: Tensor) -> tuple[float, float]:
    """Largest logit and mean entropy of causal attention, one query at a time, in float64."""
    largest, entropies = -math.inf, []
    for q_TK, k_TK in zip(
        q_BHTK.double().flatten(0, 1), k_BHTK.double().flatten(0, 1), strict=True
    ):
        for t in range(len(q_TK)):
            logits = [float(q_TK[t] @ k_TK[s]) / math.sqrt(len(q_TK[t])) for s in range(t + 1)]
            largest = max(largest, *logits)
            weights = [math.exp(logit - max(logits)) for logit in logits]
            p = [w / sum(weights) for w in weights]
            if t % 4 == (len(q_TK) - 1) % 4:  # The entropy is read at every fourth query.
                entropies.append(-sum(x * math.log(x) for x in p))
    return largest, sum(entropies) / len(entropies)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_largest_logit_and_entropy_equal_brute_force(qk_norm):
    model, probes = build(replace(CONFIG, qk_norm=qk_norm))
    seen: list[tuple[Tensor, Tensor]] = []
    for block in model.blocks:
        # An eager copy, since the probe must not see more than what we see.
        block.attention.tap.register_forward_hook(
            lambda tap, qk, out: seen.append((qk[0].detach().clone(), qk[1].detach().clone()))
        )
    columns = watch(model, probes, tokens())
    expected = [brute_force(q, k) for q, k in seen]
    assert len(expected) == 3
    for layer, (largest, _) in enumerate(expected):
        assert columns[f"max_attention_logit_layer{layer}"] == pytest.approx(largest, abs=1e-5)
    assert columns["max_attention_logit"] == pytest.approx(max(m for m, _ in expected), abs=1e-5)
    mean = sum(e for _, e in expected) / 3
    assert columns["attention_entropy"] == pytest.approx(mean, abs=1e-5)


def test_uniform_causal_attention_has_entropy_mean_log_of_the_positions_seen():
    model, probes = build()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight[:32] = 0
    columns = watch(model, probes, tokens())
    expected = sum(math.log(t + 1) for t in (3, 7, 11)) / 3
    assert columns["attention_entropy"] == pytest.approx(expected, abs=1e-5)
    assert columns["max_attention_logit"] == 0


def test_attention_that_has_collapsed_has_entropy_zero():
    model, probes = build()
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight[:64] *= 1e4
    columns = watch(model, probes, tokens())
    assert 0 <= columns["attention_entropy"] < 1e-3
    assert columns["max_attention_logit"] > 1e6


def test_a_tap_that_is_not_causal_sees_all_keys_and_its_own_scale():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)
            self.tap = Tap("attention", scale=0.5, causal=False)

        def forward(self, q: Tensor, k: Tensor) -> None:
            self.tap(q, k)

    model = Attention()
    probes = Probes(model, FlatParameters(model), ("attention",))
    q, k = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 3)
    with probes.watching():
        model(q, k)
    columns = probes.columns()
    scores = 0.5 * q @ k.mT
    p = scores.softmax(-1)
    assert columns["max_attention_logit"] == pytest.approx(float(scores.max()), abs=1e-6)
    entropy = float(-(p * p.log()).sum(-1)[..., 3].mean())
    assert columns["attention_entropy"] == pytest.approx(entropy, abs=1e-6)


def test_output_and_logit_columns_equal_their_definitions():
    model, probes = build()
    outputs: list[Tensor] = []
    for block in model.blocks:
        block.register_forward_hook(lambda m, x, y: outputs.append(y.detach().double()))
    columns = watch(model, probes, tokens())
    for layer, y in enumerate(outputs):
        rms = float((y**2).mean()) ** 0.5
        assert columns[f"output_norm_rms_layer{layer}"] == pytest.approx(rms, rel=1e-5)
    with torch.no_grad():
        logits = model(tokens()).double()[:, 3::4]
    assert columns["logits_rms"] == pytest.approx(float((logits**2).mean()) ** 0.5, rel=1e-5)
    log_z = float(logits.exp().sum(-1).log().mean())
    assert columns["log_z_mean"] == pytest.approx(log_z, rel=1e-5)


def by_kind(named: dict[str, Tensor]) -> dict[str, float]:
    """RMS over all tensors whose module's name is the same, in float64."""
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in named.items():
        kind = re.sub(r"^(blocks\.\d+\.)?((attention|mlp)\.)?(\w+)\.weight$", r"\4", name)
        groups.setdefault(kind, []).append(tensor.double().flatten())
    return {k: float((torch.cat(v) ** 2).mean()) ** 0.5 for k, v in groups.items()}


def test_gradient_parameter_and_update_columns_equal_their_definitions():
    """Update: what the weights moved by, over the learning rate, where nothing decays."""
    torch.manual_seed(0)
    model = CONFIG.build()
    flat = FlatParameters(model)
    probes = Probes(model, flat, PROBES)
    config = Optimizer(lr=1e-2, weight_decay=0.0, clip_norm=0.0, epsilon=1e-4)
    optimizer = FlatOptimizer(flat, config, Schedule(name="constant", warmup_steps=0), 10)
    for t in range(3):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        cross_entropy(model(tokens(seed=t)), tokens(seed=t + 50)).backward()
        for prefix, got, named in (
            ("grad_rms", probes.gradients(), {n: p.grad for n, p in model.named_parameters()}),
            ("param_rms", probes.parameters(), before),
        ):
            expected = {f"{prefix}_{k}": v for k, v in by_kind(named).items()}
            assert got == pytest.approx(expected, rel=1e-5)
        optimizer.step(t)
        moved = {n: (before[n] - p.detach()) / 1e-2 for n, p in model.named_parameters()}
        expected = {f"update_rms_{k}": v for k, v in by_kind(moved).items()}
        assert set(by_kind(moved)) == KINDS
        assert probes.updates(optimizer) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_every_documented_column_is_there_and_no_other(qk_norm):
    model, probes = build(replace(CONFIG, depth=2, qk_norm=qk_norm))
    columns = watch(model, probes, tokens())
    layers = ("max_attention_logit_layer", "output_norm_rms_layer")
    assert set(columns) == {
        "max_attention_logit",
        "attention_entropy",
        "log_z_mean",
        "logits_rms",
        *(f"{name}{i}" for name in layers for i in range(2)),
    }
    kinds = KINDS | ({"q_norm", "k_norm"} if qk_norm else set())
    assert set(probes.gradients()) == {f"grad_rms_{kind}" for kind in kinds}
    assert set(probes.parameters()) == {f"param_rms_{kind}" for kind in kinds}


def test_kinds_of_a_user_s_parameters_are_their_module_s_names():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.scale = nn.Parameter(torch.full((3,), 2.0))

    model = Own()
    columns = Probes(model, FlatParameters(model), ()).parameters()
    assert set(columns) == {"param_rms_layers", "param_rms_scale"}
    assert columns["param_rms_scale"] == pytest.approx(2.0)


def test_logits_at_hand_give_the_statistics_that_are_computed_without_them(monkeypatch):
    """The explicit attention hands its logits over; the fused one has none."""
    from foretune.models import TransformerConfig
    from foretune.models.blocks import attention_core

    torch.manual_seed(0)
    model = TransformerConfig(width=32, depth=2, max_positions=32).build()
    tokens = torch.randint(256, (3, 32))
    read = []
    for held in (attention_core.MAX_PROBABILITIES, 0):
        monkeypatch.setattr(attention_core, "MAX_PROBABILITIES", held)
        probes = Probes(model, FlatParameters(model), ())
        with probes.watching(), torch.no_grad():
            model(tokens)
        read.append(probes.columns())
    assert read[0] == pytest.approx(read[1], rel=1e-5)
