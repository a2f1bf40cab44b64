"""torchvision's ResNets and MobileNetV2 as a frozen config, for images of 8 to 64 pixels.

The blocks are torchvision's own classes, put together by the original recipes and never with
downloaded weights. Three changes. The stem is a 3x3 convolution of stride 1 without max pool
(MobileNetV2: its first two strides are 1), since the original's stride of 4 leaves nothing of an
8x8 image. MobileNetV2's dropout is 0: a batch is a function of seed and step, noise would not be.
One width multiplier scales both families. Norms are BatchNorm, as published: a batch needs two
images or more where the last blocks see a single pixel, and gradients depend on the micro-batch.

torchvision is imported when a model is built, since its import takes a second.
Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foretune.models.blocks.checks import check_whole
from foretune.models.blocks.layers import Tap

RESNETS = {
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet34": ("BasicBlock", (3, 4, 6, 3)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
}
"""torchvision's block class and the number of blocks of each stage (He et al. 2015, table 1)."""
NETS = (*RESNETS, "mobilenet_v2")
"""Names that `TorchvisionConfig.name` takes."""
RESNET_WIDTH = 64
"""Channels of a ResNet's first stage at a multiplier of 1."""
STEP = 8
"""What a ResNet's first channels are a multiple of."""
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),  # Stride 2 in the original.
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride (Sandler et al. 2018, table 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionConfig:
    """A complete description of one of torchvision's CNNs; `build()` makes it."""

    kind: ClassVar[str] = "torchvision"

    name: str = "resnet18"
    """Which: resnet18, resnet34, resnet50 or mobilenet_v2."""
    width_multiplier: float = 1.0
    """Factor on all channels but the image's, in whole percent; the ladder's dial is the percent.
    Channels come in steps of 8 and are at least 8, by MobileNetV2's published rule. ResNet: that of
    64 m channels in the first stage, and the rest follow; MobileNetV2: that of every layer, and at
    least 1280 before the head."""
    image_size: int = 32
    """Side of the square image, in pixels."""
    channels: int = 1
    """Channels of the image: 1 for grey, 3 for colour."""
    classes: int = 10
    """Number of classes."""

    def __post_init__(self) -> None:
        if self.name not in NETS:
            raise ValueError(f"model.name must be one of {', '.join(NETS)}, got {self.name!r}.")
        check_whole(self, ("image_size", "channels", "classes"))
        multiplier = self.width_multiplier
        # Not numpy's, and not nan or infinity, of which no percent is a whole number.
        good = type(multiplier) in (int, float) and 0.01 <= multiplier < float("inf")
        if not good or multiplier != self.percent / 100:
            raise ValueError(
                f"model.width_multiplier must be a whole number of percent from 0.01 up, "
                f"got {multiplier!r}; write it like 1.5."
            )

    @property
    def percent(self) -> int:
        """The width multiplier in percent."""
        return round(100 * self.width_multiplier)

    def build(self) -> "TorchvisionNet":
        """Returns the model with fresh weights drawn from torch's global generator."""
        return _resnet(self) if self.name in RESNETS else _mobilenet(self)


class TorchvisionNet(nn.Module):
    """Stem, norm, blocks, end, mean pool, head: images (B, C, H, W) to logits (B, classes)."""

    def __init__(
        self,
        config: TorchvisionConfig,
        *,
        stem: nn.Conv2d,
        stem_norm: nn.Module,
        blocks: Iterable[nn.Module],
        end: nn.Module,
        head: nn.Linear,
    ):
        super().__init__()
        self.config = config
        self.stem, self.stem_norm = stem, stem_norm
        self.blocks = nn.ModuleList(blocks)
        self.end, self.head = end, head
        self.block_taps = nn.ModuleList(
            Tap("block_output", layer=layer) for layer in range(len(self.blocks))
        )
        self.tap = Tap("logits")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        # Channels last: a step takes 0.77-0.94 of the time on a Zen 5 core; MobileNetV2 1.05.
        x_BCHW = self.stem(images_BCHW).contiguous(memory_format=torch.channels_last)
        x_BCHW = self.stem_norm(x_BCHW)
        for block, tap in zip(self.blocks, self.block_taps, strict=True):
            (x_BCHW,) = tap(block(x_BCHW))
        pooled_BC = self.end(x_BCHW).mean((2, 3))
        (logits,) = self.tap(self.head(pooled_BC))
        return logits


def _resnet(config: TorchvisionConfig) -> TorchvisionNet:
    """torchvision.models.ResNet at any width: its own class fixes 64 channels."""
    from torchvision.models import resnet

    block_name, depths = RESNETS[config.name]
    block = getattr(resnet, block_name)
    width = inputs = resnet_width(config.percent)
    stem = _stem(config, width)
    blocks: list[nn.Module] = []
    for stage, depth in enumerate(depths):
        planes = width * 2**stage
        outputs = planes * block.expansion
        for i in range(depth):
            stride = 2 if stage and not i else 1
            skip = _projection(inputs, outputs, stride) if i == 0 else None
            blocks.append(block(inputs, planes, stride, skip))
            inputs = outputs
    for module in nn.ModuleList(blocks).modules():
        if isinstance(module, nn.Conv2d):
            _kaiming_(module)
    stem_norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    head = nn.Linear(inputs, config.classes)
    return TorchvisionNet(
        config, stem=stem, stem_norm=stem_norm, blocks=blocks, end=nn.Identity(), head=head
    )


def resnet_width(percent: int) -> int:
    """Channels of a ResNet's first stage: the multiple of 8 next to 64 m (halves go up), at least
    8, and one more step where that would take off more than a tenth (Sandler et al. 2018).

    Never below 8: with fewer, the weight gradient of the 1x1 convolutions of stride 2 writes
    outside of its memory (oneDNN 3.12 on AVX2, channels last).
    """
    exact = RESNET_WIDTH * percent / 100
    width = max(STEP, int(exact + STEP / 2) // STEP * STEP)
    return width if width >= 0.9 * exact else width + STEP


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _mobilenet(config: TorchvisionConfig) -> TorchvisionNet:
    from torchvision.models import MobileNetV2

    net: Any = MobileNetV2(
        num_classes=config.classes,
        width_mult=config.width_multiplier,
        inverted_residual_setting=[list(row) for row in INVERTED_RESIDUALS],
        dropout=0.0,
    )
    first, *blocks, end = net.features
    conv, *norm_and_relu = first
    return TorchvisionNet(
        config,
        stem=_stem(config, conv.out_channels),
        stem_norm=nn.Sequential(*norm_and_relu),
        blocks=blocks,
        end=end,
        head=net.classifier[1],
    )


def _stem(config: TorchvisionConfig, outputs: int) -> nn.Conv2d:
    return _kaiming_(nn.Conv2d(config.channels, outputs, 3, padding=1, bias=False))


def _kaiming_(conv: nn.Conv2d) -> nn.Conv2d:
    """torchvision's start of every convolution, ResNet's and MobileNetV2's."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
