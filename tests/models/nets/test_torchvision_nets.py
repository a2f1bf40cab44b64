"""torchvision's CNNs through our config against torchvision's own builds. Shapes: B C H W."""

import socket

import pytest
import torch
import torch.nn.functional as F
import torchvision
from small_models import samples
from torch import nn
from torchvision.models._utils import _make_divisible

from foretune.models import TorchvisionConfig, TorchvisionNet
from foretune.models.nets.torchvision_nets import NETS, resnet_width

torch.set_num_threads(1)


def original(name: str) -> nn.Module:
    """torchvision's net with the stem adapted by hand: strides set, pool taken out."""
    net = torchvision.models.get_model(name, weights=None, num_classes=10)
    if name == "mobilenet_v2":
        net.features[0][0].stride = (1, 1)
        net.features[2].conv[1][0].stride = (1, 1)
        net.classifier[0].p = 0.0
    else:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net


def copy_into(model: nn.Module, source: nn.Module) -> None:
    """State by order, since names differ; shapes must agree one by one."""
    mine, theirs = list(model.state_dict().values()), list(source.state_dict().values())
    assert [t.shape for t in mine] == [t.shape for t in theirs]
    for target, value in zip(mine, theirs, strict=True):
        target.copy_(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_at_multiplier_1_it_is_torchvision_s_net_but_for_the_stem(name):
    """Same state, same logits, same statistics after a step in training mode."""
    torch.manual_seed(0)
    config = TorchvisionConfig(name=name, channels=3, image_size=16)
    model, source = config.build(), original(name)
    copy_into(model, source)
    for mode in (True, False):
        model.train(mode)
        source.train(mode)
        with torch.no_grad():
            expected, got = source(samples(config, count=4)), model(samples(config, count=4))
        scale = float(expected.abs().max())
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * scale)
    buffers = zip(model.buffers(), source.buffers(), strict=True)
    for mine, theirs in buffers:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_weights_start_as_torchvision_s_do(name):
    """Standard deviations tensor by tensor, within what drawing again changes."""
    torch.manual_seed(0)
    model = TorchvisionConfig(name=name, channels=3).build()
    torch.manual_seed(1)
    pairs = zip(model.parameters(), original(name).parameters(), strict=True)
    for i, (mine, theirs) in enumerate(pairs):
        if i == 0:  # The original's stem, which the test itself put in place.
            continue
        if mine.ndim == 1:
            assert mine.numel() == 10 or torch.equal(mine, theirs)
        else:
            tolerance = 8 / mine.numel() ** 0.5
            assert float(mine.detach().std()) == pytest.approx(
                float(theirs.detach().std()), rel=tolerance
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("multiplier", [0.06, 0.25, 0.5])
def test_the_multiplier_scales_every_layer(name, multiplier):
    model = TorchvisionConfig(name=name, width_multiplier=multiplier).build()
    full = TorchvisionConfig(name=name).build()
    for (key, narrow), wide in zip(model.named_parameters(), full.parameters(), strict=True):
        if narrow.ndim == 4:
            share = narrow.shape[0] / wide.shape[0]
            low, high = _shares(name, multiplier, key, wide.shape[0])
            assert low <= share <= high, key


def _shares(name: str, multiplier: float, key: str, channels: int) -> tuple[float, float]:
    if name != "mobilenet_v2":
        exact = _make_divisible(64 * multiplier, 8) / 64
        return exact, exact
    if key.startswith("end"):
        return 1.0, 1.0
    # Steps of 8, at least 8, times an expansion of 6 or 1: half a step up, a tenth down.
    step = 8 if channels <= 64 else 48
    return 0.9 * multiplier, max(step / channels, multiplier + step / channels)


def test_a_resnet_s_width_is_rounded_as_torchvision_rounds_mobilenet_s():
    widths = [resnet_width(percent) for percent in range(1, 500)]
    assert widths == [_make_divisible(64 * percent / 100, 8) for percent in range(1, 500)]
    assert widths == sorted(widths)
    assert [resnet_width(p) for p in (1, 12, 13, 24, 25, 50, 100)] == [8, 8, 8, 16, 16, 32, 64]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("side", [8, 32])
def test_the_stem_keeps_every_pixel_of_a_small_image(name, side):
    config = TorchvisionConfig(name=name, width_multiplier=0.1, image_size=side)
    model, shapes = config.build(), []
    model.stem.register_forward_hook(lambda m, i, output: shapes.append(output.shape[-1]))
    for block in model.blocks:
        block.register_forward_hook(lambda m, i, output: shapes.append(output.shape[-1]))
    logits = model(samples(config, count=4))
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert shapes[:3] == [side, side, side]
    assert shapes[-1] == side // 8
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def train(model: TorchvisionNet, *, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(samples(model.config, count=4)), torch.arange(4)).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_state_with_its_buffers_goes_on_bit_for_bit(name):
    config = TorchvisionConfig(name=name, width_multiplier=0.1, image_size=16)
    torch.manual_seed(0)
    through = config.build()
    train(through, steps=2)
    state = {k: v.clone() for k, v in through.state_dict().items()}
    assert sum("running_" in k for k in state) >= 2 * 17
    resumed = config.build()
    resumed.load_state_dict(state)
    train(through, steps=2)
    train(resumed, steps=2)
    for key, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert not torch.equal(state["stem_norm.0.running_mean"], through.stem_norm[0].running_mean)


def test_training_draws_no_random_numbers():
    """MobileNetV2's dropout is off: a step depends on weights and batch alone."""
    config = TorchvisionConfig(name="mobilenet_v2", width_multiplier=0.1, image_size=16)
    model = config.build()
    before = torch.get_rng_state()
    first, second = model(samples(config, count=4)), model(samples(config, count=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*args: object) -> None:
        raise AssertionError(f"no connection, got {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in NETS:
        TorchvisionConfig(name=name, width_multiplier=0.1).build()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "resnet19"}, "one of resnet18, resnet34, resnet50, mobilenet_v2, "
                               "got 'resnet19'."),
        ({"name": ["resnet18"]}, r"got \['resnet18'\]."),
        ({"width_multiplier": 0.125}, "whole number of percent from 0.01 up, got 0.125; write it "
                                      "like 1.5."),
        ({"width_multiplier": 0.0}, "got 0.0; write it like 1.5."),
        ({"width_multiplier": -1}, "got -1; write it like 1.5."),
        ({"width_multiplier": float("nan")}, "got nan; write it like 1.5."),
        ({"width_multiplier": float("inf")}, "got inf; write it like 1.5."),
        ({"width_multiplier": True}, "got True; write it like 1.5."),
        ({"width_multiplier": "1"}, "got '1'; write it like 1.5."),
        ({"classes": 0}, "model.classes must be a whole number from 1 up, got 0."),
    ],
)  # fmt: skip
def test_a_config_that_breaks_a_rule_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=f"{sentence}$"):
        TorchvisionConfig(**fields)
