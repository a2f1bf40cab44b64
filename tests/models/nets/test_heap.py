"""No model that can be built makes a kernel write outside of its memory.

What is known to: the weight gradient of a 1x1 convolution of stride 2 over fewer than 8 channels,
channels last (torch 2.14.1 with oneDNN 3.12, on a CPU with AVX2 and without AVX-512).
"""

import os
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from foretune.models import ConvNetConfig, TorchvisionConfig, ViTConfig
from foretune.models.nets.torchvision_nets import NETS, RESNETS

torch.set_num_threads(1)

CHECK = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
"""What makes glibc hold a mark behind every allocation, and abort where free() finds it changed."""

OTHERS = [name for name in NETS if name != "resnet18"]

OVERRUN = """
import ctypes
block = ctypes.create_string_buffer(1001)  # Of which malloc makes 1016: harmless if nobody looks.
ctypes.memset(block, 1, 1002)
del block
"""


def run(code: str, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, **CHECK, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def heap() -> str:
    """Whether an overrun of one byte is seen on this machine: musl and macOS have no such check."""
    return "checked" if run(OVERRUN).returncode else "unchecked, no libc_malloc_debug.so.0 here"


TRAIN = """
import sys
import torch
import torch.nn.functional as F
import test_heap
torch.set_num_threads(1)
for config in (config for kind in sys.argv[1:] for config in test_heap.narrow(kind)):
    print(config, flush=True)
    side = config.image_size
    model = config.build()
    for half in (False, False, True):
        images = torch.rand(4, config.channels, side, side)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(images)
        F.cross_entropy(logits.float(), torch.arange(4)).backward()
"""


def narrow(kind: str) -> list[Any]:
    """Image models of the smallest widths of a kind or of one of torchvision's names."""
    if kind == "convnet":
        return [
            ConvNetConfig(width=width, image_size=side, channels=channels)
            for width, side, channels in product((8, 16), (4, 8, 15, 16), (1, 3))
        ]
    if kind == "vit":
        return [
            ViTConfig(
                width=width, head_dim=width, patch_size=patch, image_size=3 * patch, channels=colour
            )
            for width, patch, colour in product((2, 6, 12), (1, 2, 4, 5), (1, 3))
        ]
    return [
        TorchvisionConfig(name=kind, width_multiplier=percent / 100, image_size=side, channels=3)
        for percent, side in product((1, 10, 20), (8, 16))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("heap", [heap()])
@pytest.mark.parametrize(
    "kinds",
    [["resnet18"], ["convnet", "vit", *OTHERS]],
    ids=["resnet18", "others"],
)
def test_training_the_narrowest_models_leaves_the_heap_whole(kinds, heap):
    """In a process of its own, which such a write would end. Where the C library can't check (the
    test's name says so), it is still one that writes so far out that malloc itself stumbles.
    """
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n{TRAIN}"
    done = run(code, *kinds)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-3:]
    assert done.stdout.splitlines() == [str(config) for kind in kinds for config in narrow(kind)]


@pytest.mark.parametrize("name", RESNETS)
def test_a_strided_product_of_pixels_has_whole_groups_of_8_channels(name):
    """The same on every CPU, whether its kernels have the fault or not."""
    for percent in (1, 6, 10, 14, 20, 24, 133):
        with torch.device("meta"):
            model = TorchvisionConfig(name=name, width_multiplier=percent / 100).build()
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        strided = [m for m in convs if m.kernel_size == (1, 1) and m.stride != (1, 1)]
        assert [conv.in_channels % 8 for conv in strided] == [0, 0, 0], percent
