"""Learning rate, decay and epsilon of each tensor against torch's AdamW with parameter groups."""

import pytest
import torch
from torch import Tensor, nn
from updated_models import (
    CONFIG,
    CONSTANT,
    QKV,
    STEPS,
    assert_near,
    assert_same_bits,
    by_name,
    flat_optimizer,
    gradients,
    lr,
    transformer,
    update,
    updated,
)

from foretune.models import ConvNetConfig, Parametrization, Rule, ViTConfig, parametrize
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.optim.flat_optimizer import FlatOptimizer
from foretune.tuner.optim.flat_parameters import FlatParameters

PEAK, DECAY = 3e-2, 0.05


def by_torch(groups: dict[str, dict[str, float]], *, decay: str = "independent") -> dict:
    """Five updates by torch's AdamW, a group for each tensor: factor on LR, decay, epsilon.

    A name that ends in [qk] or [v] is the rows of qkv that make queries and keys, or values.
    """
    model = transformer()
    flat = FlatParameters(model)
    whole = {n: p.detach().clone() for n, p in model.named_parameters()}
    parts: dict[str, Tensor] = {}
    for name, weight in whole.items():
        if f"{name}[qk]" in groups:
            parts |= {f"{name}[qk]": weight[: 2 * CONFIG.width], f"{name}[v]": weight[-16:]}
        else:
            parts[name] = weight
    options = []
    for name, part in parts.items():
        own = {"lr": 1.0, "decay": DECAY, "eps": 1e-8, **groups.get(name, {})}
        lam = own["decay"] / (PEAK * own["lr"]) if decay == "independent" else own["decay"]
        options.append(
            {"params": [nn.Parameter(part)], "lr": PEAK, "weight_decay": lam, "eps": own["eps"],
             "factor": own["lr"], "name": name}
        )  # fmt: skip
    adamw = torch.optim.AdamW(options, betas=(0.9, 0.95))
    for t, grads in enumerate(gradients(flat), start=1):
        named = dict(zip(flat.names, flat.views(grads), strict=True))
        for group in adamw.param_groups:
            name, _, rows = group["name"].partition("[")
            grad = named[name].view_as(whole[name])
            grad = {"": grad, "qk]": grad[: 2 * CONFIG.width], "v]": grad[-16:]}[rows]
            group["params"][0].grad = grad
            group["lr"] = lr(PEAK, t) * group["factor"]
        adamw.step()
    after = {g["name"]: g["params"][0].detach() for g in adamw.param_groups}
    joined = {
        n: torch.cat((after[n], after.pop(f"{n[:-4]}[v]"))) for n in list(after) if "[qk" in n
    }
    return {n: v for n, v in after.items() if "[" not in n} | {n[:-4]: v for n, v in joined.items()}


def ours(rules: dict[str, Rule] | None = None, **fields) -> dict[str, Tensor]:
    fields = {"lr": PEAK, "weight_decay": DECAY, "clip_norm": 0.0, **fields}
    return updated(flat_optimizer(rules=rules, **fields))


def test_the_default_is_one_call_of_the_kernel_over_the_whole_buffer_bit_for_bit():
    model = transformer()
    flat, plain = FlatParameters(model), FlatParameters(transformer())
    config = Optimizer(lr=PEAK, weight_decay=DECAY, clip_norm=1.0)
    optimizer = FlatOptimizer(flat, config, CONSTANT, STEPS)
    assert [group.spans for group in optimizer.groups] == [((0, len(flat.values)),)]
    first, second, count = (torch.zeros_like(plain.values) for _ in range(3))
    count = torch.zeros(())
    for t, grads in enumerate(gradients(flat)):
        flat.grads.copy_(grads)
        optimizer.clip(1.0)
        optimizer.step(t)
        norm = float(torch.linalg.vector_norm(grads))
        grads = grads * (1.0 / norm) if norm > 1 else grads
        count += 1
        torch.ops.aten._fused_adamw_(
            [plain.values], [grads], [first], [second], [], [count], lr=lr(PEAK, t + 1),
            beta1=0.9, beta2=0.95, weight_decay=DECAY / PEAK, eps=1e-8, amsgrad=False,
            maximize=False,
        )  # fmt: skip
    assert torch.equal(flat.values, plain.values)


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_factors_on_the_learning_rate_and_epsilon_of_a_parametrization(decay):
    """Independent decay takes s_t lambda whatever the factor; coupled eta_t factor lambda."""
    rules = {
        "embedding.weight": Rule(lr=3.0),
        f"blocks.0.{QKV}": Rule(lr=0.25, epsilon=1e5),
        "blocks.1.mlp.mlp_in.weight": Rule(lr=0.25),
        "head.weight": Rule(epsilon=1e7),
    }
    groups = {n: {"lr": rule.lr, "eps": 1e-8 * rule.epsilon} for n, rule in rules.items()}
    assert_near(ours(rules, decay=decay), by_torch(groups, decay=decay))


def test_the_rules_of_mup_reach_the_optimizer_by_name():
    model = transformer()
    rules = parametrize(model, CONFIG, Parametrization(name="mup-simple", base_width=4))
    linear = [n for n in FlatParameters(transformer()).names if "norm" not in n and n[:2] != "em"]
    assert sorted(rules) == sorted(linear)
    assert_near(ours(rules), by_torch({n: {"lr": 0.25} for n in linear}))


def test_queries_and_keys_learn_at_their_own_rate():
    qkv = [f"blocks.{i}.{QKV}" for i in range(2)]
    groups = {f"{n}[qk]": {"lr": 0.1} for n in qkv}
    assert_near(ours(qk_lr=0.1), by_torch(groups))
    # On top of the factor of a parametrization, which all rows have.
    groups |= {f"{qkv[0]}[qk]": {"lr": 0.05}, f"{qkv[0]}[v]": {"lr": 0.5}}
    assert_near(ours({qkv[0]: Rule(lr=0.5)}, qk_lr=0.1), by_torch(groups))


def test_what_decays():
    names = FlatParameters(transformer()).names
    gains = [n for n in names if "norm" in n]
    none = {n: {"decay": 0.0} for n in gains}
    assert_near(ours(decay_on="matrices"), by_torch(none))
    none["embedding.weight"] = {"decay": 0.0}
    assert_near(ours(decay_on="linear"), by_torch(none))


@pytest.mark.parametrize("config", [ViTConfig(width=16, depth=1), ConvNetConfig(width=8)])
def test_what_decays_in_a_vision_model(config):
    flat = FlatParameters(config.build())
    decaying = {}
    for decay_on in ("all", "matrices", "linear"):
        fields = Optimizer(decay_on=decay_on, weight_decay=0.5)
        optimizer = FlatOptimizer(flat, fields, Schedule(), 20)
        decaying[decay_on] = {flat.names[p.tensor] for p in optimizer.segments if p.decay}
    axes = dict(zip(flat.names, map(len, flat.shapes), strict=True))
    embeddings = {"patch_embedding.weight", "position_embedding"} & set(flat.names)
    assert decaying["all"] == set(flat.names)
    assert decaying["matrices"] == {n for n in flat.names if axes[n] > 1}
    assert decaying["linear"] == decaying["matrices"] - embeddings


def test_no_factor_and_no_exception_is_the_default_bit_for_bit():
    plain = ours()
    ones = {n: Rule() for n in FlatParameters(transformer()).names}
    assert_same_bits(ours(ones, qk_lr=1.0, decay_on="all"), plain)
    assert_same_bits(ours(weight_decay=0.0, decay_on="linear"), ours(weight_decay=0.0))


def test_a_learning_rate_of_a_weight_that_is_not_there_is_refused():
    own = nn.Sequential(nn.Linear(3, 3))
    sentence = (
        r"^optimizer.qk_lr needs a model with a weight called ...qkv.weight of 3 D rows, got none; "
        r"set optimizer.qk_lr=1.$"
    )
    with pytest.raises(ValueError, match=sentence):
        flat_optimizer(own, qk_lr=0.5)


def test_the_bias_of_queries_and_keys_has_the_learning_rate_of_their_weight():
    moved = {}
    for factor in (1.0, 0.25):
        torch.manual_seed(0)
        own = nn.ModuleDict({"qkv": nn.Linear(6, 18), "out": nn.Linear(6, 6)})
        optimizer = flat_optimizer(own, qk_lr=factor, weight_decay=0.0, clip_norm=0.0)
        before = by_name(optimizer.flat, optimizer.flat.values)
        update(optimizer, gradients(optimizer.flat)[0], 0)
        after = by_name(optimizer.flat, optimizer.flat.values)
        moved[factor] = {n: after[n] - before[n] for n in after}
    for name, whole in moved[1.0].items():
        less = whole.clone()
        if name.startswith("qkv"):
            less[:12] *= 0.25
        torch.testing.assert_close(moved[0.25][name], less, rtol=1e-3, atol=1e-7)
