"""The image transformer against a second implementation made of torch's own parts.

Shapes: B images, C channels, H x W pixels, P patch side, T patches, D width, K head dimension.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import gradients, in_float64, samples, with_gains
from torch import Tensor, nn

from foretune.models import Tap, ViT, ViTConfig

torch.set_num_threads(1)

CONFIGS = [
    ViTConfig(width=16, depth=1, head_dim=8, image_size=8, patch_size=2),
    ViTConfig(width=24, depth=2, head_dim=12, image_size=12, channels=3, classes=7),
    ViTConfig(width=64, depth=3),
    ViTConfig(width=32, depth=2, image_size=16, qk_norm=True),
    ViTConfig(width=128, depth=1, head_dim=32, channels=3, classes=100, qk_norm=True),
]


def name(config: ViTConfig) -> str:
    return f"width{config.width}-pixels{config.image_size}-qk{config.qk_norm}"


def norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.layer_norm(x, gain.shape, gain, None, 1e-6)


def attention(h_BTD: Tensor, w: dict[str, Tensor], block: str, config: ViTConfig) -> Tensor:
    """torch's own multi-head attention; with qk-layernorm, which it lacks, its fused kernel."""
    qkv, out = w[block + "attention.qkv.weight"], w[block + "attention.attention_out.weight"]
    if not config.qk_norm:
        module = nn.MultiheadAttention(config.width, config.heads, bias=False, batch_first=True)
        weights = {"in_proj_weight": qkv, "out_proj.weight": out}
        y, _ = torch.func.functional_call(module.double(), weights, (h_BTD, h_BTD, h_BTD))
        return y
    split = h_BTD.shape[0], h_BTD.shape[1], config.heads, config.head_dim
    q, k, v = ((h_BTD @ part.T).view(split).transpose(1, 2) for part in qkv.chunk(3))
    q = norm(q, w[block + "attention.q_norm.weight"])
    k = norm(k, w[block + "attention.k_norm.weight"])
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2) @ out.T


def reference(w: dict[str, Tensor], config: ViTConfig, images_BCHW: Tensor) -> Tensor:
    """Logits in float64 from a model's weights by name; patches by unfolding, not convolving."""
    patches_BTI = F.unfold(
        images_BCHW.double(), config.patch_size, stride=config.patch_size
    ).transpose(1, 2)
    x = patches_BTI @ w["patch_embedding.weight"].flatten(1).T
    x = x + w["position_embedding"]
    for layer in range(config.depth):
        b = f"blocks.{layer}."
        x = x + attention(norm(x, w[b + "attention_norm.weight"]), w, b, config)
        h = norm(x, w[b + "mlp_norm.weight"]) @ w[b + "mlp.mlp_in.weight"].T
        x = x + F.gelu(h) @ w[b + "mlp.mlp_out.weight"].T
    return norm(x.mean(1), w["final_norm.weight"]) @ w["head.weight"].T


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_logits_and_gradients_equal_those_of_an_independent_implementation(config):
    model, inputs = with_gains(config), samples(config)
    targets = torch.arange(3) % config.classes
    logits, weights = model(inputs), in_float64(model)
    expected_logits = reference(weights, config, inputs)
    assert logits.shape == (3, config.classes)
    assert expected_logits.std() > 0.3
    torch.testing.assert_close(logits.double(), expected_logits, rtol=0, atol=1e-5)
    F.cross_entropy(logits, targets).backward()
    F.cross_entropy(expected_logits, targets).backward()
    for key, got, expected in gradients(model, weights):
        assert float((got - expected).norm() / expected.norm()) < 1e-4, key


def shuffled_patches(images_BCHW: Tensor, config: ViTConfig) -> Tensor:
    patch = config.patch_size
    patches_BIT = F.unfold(images_BCHW, patch, stride=patch)
    order = torch.randperm(config.patches, generator=torch.Generator().manual_seed(3))
    side = config.image_size
    return F.fold(patches_BIT[:, :, order], (side, side), patch, stride=patch)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_only_the_positions_tell_one_order_of_patches_from_another(config):
    """Without them the logits are the same in any order, so no patch is masked from another."""
    model, inputs = with_gains(config), samples(config)
    with torch.no_grad():
        before, after = model(inputs), model(shuffled_patches(inputs, config))
        assert (before - after).abs().max() > 1e-2
        model.position_embedding.zero_()
        before, after = model(inputs), model(shuffled_patches(inputs, config))
    torch.testing.assert_close(before, after, rtol=0, atol=2e-5)


def test_the_first_patch_sees_the_last_one():
    config = CONFIGS[0]
    model, inputs, changed = with_gains(config), samples(config), samples(config)
    changed[:, :, -2:, -2:] += 1.0
    seen: list[Tensor] = []
    with torch.no_grad():
        for batch in (inputs, changed):
            x_BTD = (
                model.patch_embedding(batch).flatten(2).transpose(1, 2) + model.position_embedding
            )
            seen.append(model.blocks[0](x_BTD.flatten(0, 1), 3).view(x_BTD.shape))
    assert (seen[0] != seen[1]).any(-1).all()


def largest_logit(model: ViT, inputs: Tensor) -> float:
    """Over all layers, from the attention taps."""
    found: list[Tensor] = []

    def watch(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        q_BHTK, k_BHTK = tensors[:2]
        found.append((tap.scale * q_BHTK @ k_BHTK.mT).abs().amax())

    for module in model.modules():
        if isinstance(module, Tap) and module.kind == "attention":
            assert not module.causal
            module.watch = watch
    with torch.no_grad():
        model(inputs)
    assert len(found) == model.config.depth
    return float(torch.stack(found).amax())


@pytest.mark.parametrize("head_dim", [8, 16])
def test_qk_norm_bounds_the_attention_logits_whatever_the_weights(head_dim):
    """|LN(q) . LN(k)| / sqrt(K) <= sqrt(K), since a normalised vector has length sqrt(K)."""
    largest = {}
    for qk_norm in (False, True):
        torch.manual_seed(0)
        model = ViTConfig(width=32, head_dim=head_dim, image_size=16, qk_norm=qk_norm).build()
        with torch.no_grad():
            for block in model.blocks:
                block.attention.qkv.weight.mul_(1000)
        largest[qk_norm] = largest_logit(model, samples(model.config))
    assert largest[True] <= math.sqrt(head_dim) * (1 + 1e-5)
    assert largest[False] > 1e5


@pytest.mark.parametrize("channels", [1, 3])
def test_initial_weights_have_fan_in_distributions(channels):
    torch.manual_seed(0)
    model = ViTConfig(width=128, channels=channels, qk_norm=True, classes=100).build()
    for key, parameter in model.named_parameters():
        if "norm" in key:
            assert torch.equal(parameter, torch.ones_like(parameter)), key
            continue
        fan_in = 1 if key == "position_embedding" else parameter[0].numel()
        sigma = fan_in**-0.5
        tolerance = 5 / math.sqrt(2 * parameter.numel())
        assert float(parameter.detach().std()) == pytest.approx(sigma, rel=tolerance), key
        largest = float(parameter.detach().abs().max()) / sigma
        if key == "position_embedding":
            assert largest > 3  # A normal isn't cut off.
        else:
            assert 2.2 < largest <= 2 / 0.87962 + 1e-5, key


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"width": 40}, "got 40 and 16; the nearest widths are 32 and 48."),
        ({"width": 5, "head_dim": 6}, "got 5 and 6; the nearest width is 6."),
        ({"image_size": 30}, "model.image_size must be a multiple of model.patch_size, got 30 "
                             "and 4; the nearest sizes are 28 and 32."),
        ({"patch_size": 0}, "model.patch_size must be a whole number from 1 up, got 0."),
        ({"classes": True}, "model.classes must be a whole number from 1 up, got True."),
        ({"channels": 1.0}, "model.channels must be a whole number from 1 up, got 1.0."),
        ({"depth": -2}, "model.depth must be a whole number from 1 up, got -2."),
        ({"qk_norm": "yes"}, "model.qk_norm must be True or False, got 'yes'."),
    ],
)  # fmt: skip
def test_a_config_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"{sentence}$"):
        ViTConfig(**fields)


def test_positions_start_as_large_as_what_standardised_pixels_give():
    torch.manual_seed(0)
    model = ViTConfig(width=128).build()
    with torch.no_grad():
        content = model.patch_embedding(samples(model.config, count=64))
    assert float(content.std()) == pytest.approx(1, rel=0.05)
    assert float(model.position_embedding.detach().std()) == pytest.approx(1, rel=0.05)
