"""Every kind of model in MODELS keeps the same promises. Shapes as in each model's module."""

import pytest
import torch
import torch.nn.functional as F
from small_models import built, samples
from torch import Tensor

from foretune.models import MODELS, Tap, at_size, count, has_ladder, size_of
from foretune.models.nets.torchvision_nets import NETS

torch.set_num_threads(1)

MECHANISMS = {
    "normed": {"qk_norm": True, "qk_norm_span": "width", "v_norm": True, "attention_softcap": 2.0,
               "logit_softcap": 5.0, "norm_placement": "reordered", "attention_scale": "linear"},
    "pointwise": {"attention": "relu2", "kappa": 2.0, "norm_placement": "post"},
}  # fmt: skip
"""Fields that hardly meet elsewhere."""
TOKENS = {"vocab_size": 10, "max_positions": 8}
SMALLEST = {
    "transformer": MODELS["transformer"](width=16, depth=2, **TOKENS),
    "transformer qk_norm": MODELS["transformer"](width=16, qk_norm=True, **TOKENS),
    "vit": MODELS["vit"](width=16, depth=2, image_size=8),
    "vit qk_norm": MODELS["vit"](width=16, depth=2, image_size=8, qk_norm=True),
    "convnet": MODELS["convnet"](width=8, image_size=8),
    **{
        f"{kind} {name}": MODELS[kind](width=16, depth=2, **size, **fields)
        for kind, size in (("transformer", TOKENS), ("vit", {"image_size": 8}))
        for name, fields in MECHANISMS.items()
    },
    **{net: MODELS["torchvision"](name=net, width_multiplier=0.01, image_size=8) for net in NETS},
}
"""At the smallest rung of each ladder."""
RUNGS = {"transformer": (16, 48, 512), "vit": (16, 48, 512), "convnet": (8, 40, 256)}
PERCENTS = (1, 29, 57, 100, 150, 460)
"""29 and 57 are among those that 0.29 * 100 misses in binary."""


def each(fields: str = "config"):
    return pytest.mark.parametrize(fields, SMALLEST.values(), ids=SMALLEST)


def test_every_kind_is_among_the_smallest():
    assert {config.kind for config in SMALLEST.values()} == set(MODELS)
    assert all(cls.kind == kind for kind, cls in MODELS.items())


def backward(model: torch.nn.Module, inputs: Tensor) -> Tensor:
    logits = model(inputs)
    targets = torch.arange(logits.numel() // logits.shape[-1]) % logits.shape[-1]
    F.cross_entropy(logits.flatten(0, -2), targets).backward()
    return logits


@each()
def test_forward_and_backward_are_finite_and_reach_every_parameter(config):
    model = built(config)
    logits = backward(model, samples(config, count=4))
    assert logits.shape[0] == 4
    assert logits.shape[-1] == 10
    assert torch.isfinite(logits).all()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@each()
def test_every_tap_sees_its_tensors_once_a_pass_and_changes_nothing(config):
    model, inputs, seen = built(config), samples(config, count=4), []
    plain = model(inputs)

    def watch(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        seen.append((tap.kind, tap.layer))
        assert len(tensors) == (3 if tap.kind == "attention" else 1)  # Logits are held here.
        if tap.kind == "logits":
            assert tensors[0].shape[-1] == 10

    taps = [m for m in model.modules() if isinstance(m, Tap)]
    for tap in taps:
        tap.watch = watch
    assert torch.equal(model(inputs), plain)
    assert sorted(seen) == sorted((tap.kind, tap.layer) for tap in taps)
    layers = range(len(model.blocks))
    kinds = ["block_output"] + ["attention"] * (config.kind in ("transformer", "vit"))
    expected = [(kind, layer) for kind in kinds for layer in layers]
    assert sorted(seen) == sorted([*expected, ("logits", -1)])


@each()
def test_same_seed_same_weights_and_another_seed_others(config):
    first, second, other = (built(config, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@each()
def test_a_state_goes_into_another_model_and_gives_the_same_bits(config):
    model, other, inputs = built(config), built(config, seed=1), samples(config, count=4)
    backward(model, inputs)  # Moves the statistics of norms that keep them.
    assert not torch.equal(model(inputs), other(inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(inputs), other.eval()(inputs))


@each()
def test_size_is_the_inverse_of_at_size_and_nothing_else_moves(config):
    assert has_ladder(config)
    for size in RUNGS.get(config.kind, PERCENTS):
        rung = at_size(config, size)
        assert size_of(rung) == size
        assert at_size(rung, size_of(config)) == config
    assert at_size(config, size_of(config)) == config


@each()
def test_the_smallest_rung_is_small(config):
    """100,000 parameters at most, but for ResNets, which start at 8 channels (see decisions.md)."""
    most = {"resnet18": 180_000, "resnet34": 340_000, "resnet50": 380_000}
    assert 0 < count(config).n_params <= most.get(getattr(config, "name", ""), 100_000)


@each()
def test_bfloat16_autocast_gives_finite_logits_near_those_of_float32(config):
    model, inputs = built(config).eval(), samples(config, count=4)
    with torch.no_grad():
        exact = model(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(inputs)
    scale = float(exact.abs().max())
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.06 * scale + 1e-3)
