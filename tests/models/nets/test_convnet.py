"""The residual CNN: what it computes, that images don't mix, that gradients reach every weight.

Shapes: B images, C channels, H x W pixels.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import gradients, in_float64, samples, with_gains
from torch import Tensor, nn

from foretune.models import ConvNetConfig, Tap

torch.set_num_threads(1)

CONFIGS = [
    ConvNetConfig(width=8, image_size=8),
    ConvNetConfig(width=16, depth=2, channels=3, classes=100),
    ConvNetConfig(width=24, depth=3, image_size=11),
    ConvNetConfig(width=8, image_size=1),
]


def name(config: ConvNetConfig) -> str:
    return f"width{config.width}x{config.depth}-pixels{config.image_size}"


def norm_relu(x_BCHW: Tensor, w: dict[str, Tensor], key: str) -> Tensor:
    """Group normalisation written out: mean and variance over 8 channels and all pixels."""
    groups = x_BCHW.unflatten(1, (-1, 8))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = groups.var((2, 3, 4), keepdim=True, correction=0)
    normal = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
    return (normal * w[key + ".weight"][:, None, None] + w[key + ".bias"][:, None, None]).relu()


def convolve(x_BCHW: Tensor, weight_OIKK: Tensor, stride: int) -> Tensor:
    """A convolution as one matrix product over unfolded pixels."""
    side, kernel = x_BCHW.shape[-1], weight_OIKK.shape[-1]
    columns = F.unfold(x_BCHW, kernel, padding=kernel // 2, stride=stride)
    return (weight_OIKK.flatten(1) @ columns).unflatten(-1, (-(-side // stride), -1))


def reference(w: dict[str, Tensor], config: ConvNetConfig, images_BCHW: Tensor) -> Tensor:
    """Logits in float64 from a model's weights by name."""
    x = convolve(images_BCHW.double(), w["stem.weight"], 1)
    for layer in range(3 * config.depth):
        b = f"blocks.{layer}."
        stride = 2 if layer in (config.depth, 2 * config.depth) else 1
        h = norm_relu(x, w, b + "norm1")
        skip = convolve(h, w[b + "shortcut.weight"], 2) if stride == 2 else x
        h = norm_relu(convolve(h, w[b + "conv1.weight"], stride), w, b + "norm2")
        x = skip + convolve(h, w[b + "conv2.weight"], 1)
    return norm_relu(x, w, "final_norm").flatten(2).mean(2) @ w["head.weight"].T


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_logits_and_gradients_equal_those_of_an_independent_implementation(config):
    model, inputs = with_gains(config), samples(config, count=4)
    targets = torch.arange(4) % config.classes
    weights = in_float64(model)
    logits, expected_logits = model(inputs), reference(weights, config, inputs)
    assert logits.shape == (4, config.classes)
    torch.testing.assert_close(logits.double(), expected_logits, rtol=0, atol=1e-4)
    F.cross_entropy(logits, targets).backward()
    F.cross_entropy(expected_logits, targets).backward()
    for key, got, expected in gradients(model, weights):
        error = float((got - expected).norm())
        assert error <= 1e-3 * float(expected.norm()) + 1e-6, key


@pytest.mark.parametrize("config", CONFIGS[:3], ids=name)
def test_gradients_reach_every_weight_and_are_finite(config):
    model = with_gains(config)
    F.cross_entropy(model(samples(config, count=4)), torch.arange(4)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("width", [8, 64])
def test_signals_start_at_the_size_of_the_images_whatever_the_width(width):
    torch.manual_seed(0)
    model = ConvNetConfig(width=width, depth=3).build()
    rms: dict[int, float] = {}

    def watch(tap: Tap, tensors: tuple[Tensor, ...]) -> None:
        rms[tap.layer] = float(tensors[0].square().mean().sqrt())

    for module in model.modules():
        if isinstance(module, Tap):
            module.watch = watch
    with torch.no_grad():
        model(samples(model.config, count=4))
    assert sorted(rms) == list(range(-1, 9))
    assert all(0.3 < value < 3 for value in rms.values()), rms


def test_images_a_million_times_as_bright_give_finite_logits():
    model = with_gains(CONFIGS[1])
    with torch.no_grad():
        logits = model(1e6 * samples(CONFIGS[1], count=4))
    assert torch.isfinite(logits).all()
    assert logits.abs().max() < 100  # Norms stand between the images and the head.


def test_an_image_s_logits_do_not_depend_on_its_neighbours():
    """Nor on the mode, and nothing but weights is kept: norms have no memory of past batches."""
    model, inputs = with_gains(CONFIGS[1]), samples(CONFIGS[1], count=4)
    with torch.no_grad():
        together = model(inputs)
        alone = torch.cat([model.eval()(image[None]) for image in inputs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert not list(model.buffers())


def test_gradients_of_micro_batches_add_up_to_those_of_the_batch():
    """As for any net without batch statistics."""
    model, inputs = with_gains(CONFIGS[1]), samples(CONFIGS[1], count=4)
    targets = torch.arange(4)
    F.cross_entropy(model(inputs), targets).backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for half in (slice(0, 2), slice(2, 4)):
        (F.cross_entropy(model(inputs[half]), targets[half]) / 2).backward()
    for expected, parameter in zip(whole, model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)


def test_every_convolution_is_a_plain_conv2d_without_bias():
    """So that a quantizer can replace it by its name; the stem and the head have names to skip."""
    convolutions = {k: m for k, m in with_gains(CONFIGS[1]).named_modules() if "conv" in k.lower()}
    assert len(convolutions) == 12
    model = with_gains(CONFIGS[1])
    kinds = {k.split(".")[-1] for k, m in model.named_modules() if type(m) is nn.Conv2d}
    assert kinds == {"stem", "conv1", "conv2", "shortcut"}
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_initial_weights_make_up_for_relu_where_there_is_one():
    torch.manual_seed(0)
    model = ConvNetConfig(width=32, channels=3).build()
    for key, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in, gain = module.weight[0].numel(), 1 if key == "stem" else 2
            tolerance = 5 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(
                math.sqrt(gain / fan_in), rel=tolerance
            ), key


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"width": 20}, "a multiple of 8, .* got 20; the nearest widths are 16 and 24."),
        ({"width": 4}, "got 4; the nearest width is 8."),
        ({"depth": 0}, "model.depth must be a whole number from 1 up, got 0."),
        ({"channels": None}, "model.channels must be a whole number from 1 up, got None."),
        ({"image_size": 8.0}, "model.image_size must be a whole number from 1 up, got 8.0."),
    ],
)
def test_a_config_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"{sentence}$"):
        ConvNetConfig(**fields)
