"""Every telemetry column against a computation of its own.

Shapes: B sequences, T positions, H heads, K head dimension.
"""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from models import Tap, Transformer, TransformerConfig
from tuner.config import PROBES, Optimizer, Schedule
from tuner.losses import cross_entropy
from tuner.optim import AdamW, FlatParameters
from tuner.probes import Probes

torch.set_num_threads(1)

CONFIG = TransformerConfig(width=32, depth=3, head_dim=8, vocab_size=40, max_positions=12)
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


def build(config: TransformerConfig = CONFIG) -> tuple[Transformer, Probes]:
    torch.manual_seed(0)
    model = config.build()
    return model, Probes(model, FlatParameters(model), PROBES)


def tokens(*, seed: int = 0, sequences: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, (sequences, 12), generator=generator)


def watch(model: nn.Module, probes: Probes, *batches: Tensor) -> dict[str, float]:
    with probes.watching():
        for batch in batches:
            model(batch)
    return probes.columns()


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
    config = TransformerConfig(
        width=32, depth=3, head_dim=8, vocab_size=40, max_positions=12, qk_norm=qk_norm
    )
    model, probes = build(config)
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
    optimizer = AdamW(flat, config, Schedule(name="constant", warmup_steps=0), 10)
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
    config = TransformerConfig(
        width=32, depth=2, head_dim=8, vocab_size=40, max_positions=12, qk_norm=qk_norm
    )
    model, probes = build(config)
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


def test_watching_changes_no_bit_of_the_output_and_ends_with_its_block():
    model, probes = build()
    with torch.no_grad():
        plain = model(tokens())
        with probes.watching():
            watched = model(tokens())
        columns = probes.columns()
        after = model(tokens(seed=9))
    assert torch.equal(plain, watched)
    assert not torch.equal(plain, after)
    # The pass after the block left no reading and no hook.
    assert probes.columns() == columns
    assert not any(tap._forward_hooks for tap in model.modules() if isinstance(tap, Tap))


def test_hooks_are_gone_even_when_the_pass_breaks():
    model, probes = build()
    with pytest.raises(IndexError), probes.watching():
        model(torch.full((1, 12), 40))
    assert not any(tap._forward_hooks for tap in model.modules() if isinstance(tap, Tap))


def test_watching_changes_no_bit_of_the_gradients():
    grads = []
    for watched in (False, True):
        model, probes = build()
        if watched:
            with probes.watching():
                cross_entropy(model(tokens()), tokens(seed=1)).backward()
        else:
            cross_entropy(model(tokens()), tokens(seed=1)).backward()
        grads.append(probes.flat.grads.clone())
    assert torch.equal(*grads)


def test_micro_batches_give_the_largest_maximum_and_the_mean_of_means():
    model, probes = build()
    first, second = tokens(seed=1), tokens(seed=2)
    parts = [watch(model, probes, batch) for batch in (first, second)]
    both = watch(model, probes, first, second)
    whole = watch(model, probes, torch.cat((first, second)))
    for name in ("max_attention_logit", "max_attention_logit_layer1"):
        assert both[name] == max(p[name] for p in parts)
        assert both[name] == pytest.approx(whole[name], abs=1e-5)
    for name in ("attention_entropy", "log_z_mean"):
        assert both[name] == pytest.approx((parts[0][name] + parts[1][name]) / 2, abs=1e-6)
        assert both[name] == pytest.approx(whole[name], abs=1e-5)


@pytest.mark.parametrize("broken_layer", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reading_that_is_not_finite_is_not_lost(broken_layer, value):
    model, probes = build()
    with torch.no_grad():
        model.blocks[broken_layer].attention.qkv.weight[0] = value
    columns = watch(model, probes, tokens())
    assert not math.isfinite(columns[f"max_attention_logit_layer{broken_layer}"])
    assert not math.isfinite(columns["max_attention_logit"])
    assert not math.isfinite(columns["attention_entropy"])
    # Not the logits: over 12 keys torch's fused attention returns 0 for a query that is nan.
    for layer in range(broken_layer):
        assert math.isfinite(columns[f"max_attention_logit_layer{layer}"])


def test_one_bad_micro_batch_among_good_ones_is_not_lost():
    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 1)
            self.tap = Tap("logits")

        def forward(self, x: Tensor) -> None:
            self.tap(x)

    model = Logits()
    probes = Probes(model, FlatParameters(model), ())
    good, bad = torch.zeros(2, 3), torch.full((2, 3), math.nan)
    for batches in ((good, bad), (bad, good)):
        columns = watch(model, probes, *batches)
        assert math.isnan(columns["log_z_mean"])
        assert math.isnan(columns["logits_rms"])


def test_a_nan_in_one_gradient_shows_in_its_kind_alone():
    model, probes = build()
    cross_entropy(model(tokens()), tokens(seed=1)).backward()
    model.blocks[1].mlp.mlp_in.weight.grad[0, 0] = math.nan
    broken = {name for name, v in probes.gradients().items() if not math.isfinite(v)}
    assert broken == {"grad_rms_mlp_in"}


def test_a_probe_without_a_tap_is_refused_in_one_sentence():
    model = nn.Sequential(nn.Embedding(40, 40))
    flat = FlatParameters(model)
    with pytest.raises(
        ValueError,
        match=r"^probes must each have a tap in the model, got none of kind attention, logits; "
        r"add models.Tap\('attention'\) where the tensor is, or take it out of probes.$",
    ):
        Probes(model, flat, ("logits", "attention"))
    assert Probes(model, flat, ()).columns() == {}


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
