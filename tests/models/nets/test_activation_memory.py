"""Estimated peaks of a forward and backward pass against those that torch's profiler sees."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from foretune.models import ConvNetConfig, TorchvisionConfig, TransformerConfig, ViTConfig
from foretune.models.nets.activation_memory import activation_bytes

torch.set_num_threads(1)

TOKENS, IMAGES = (8, 64), (32, 1, 32, 32)
CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lm": (TransformerConfig(), TOKENS),
    "wide": (TransformerConfig(width=256), TOKENS),
    "deep": (TransformerConfig(width=16, depth=12), TOKENS),
    "gated": (TransformerConfig(norm="rmsnorm", mlp="swiglu"), TOKENS),
    "qk-norm": (TransformerConfig(qk_norm=True), TOKENS),
    "pointwise": (TransformerConfig(attention="relu2"), TOKENS),
    "vocabulary": (TransformerConfig(vocab_size=8000), TOKENS),
    "fused attention": (TransformerConfig(max_positions=256), (16, 256)),
    "vit": (ViTConfig(), IMAGES),
    "convnet": (ConvNetConfig(), IMAGES),
    "mobilenet": (TorchvisionConfig(name="mobilenet_v2", width_multiplier=0.25), IMAGES),
}


UNFOLDING = "aten::_slow_conv2d"
"""PyTorch's convolution without oneDNN, for bfloat16 on a CPU without AVX-512 or AMX. It unfolds
the whole batch (B C k^2 H W values) inside of the kernel: the machine's doing, not the model's."""


def peak(config: Any, shape: tuple[int, ...], precision: str) -> int:
    """Most bytes that were allocated at once in one forward and backward pass, gradients aside.

    What a kernel of `UNFOLDING` takes and gives back counts by what is left of it afterwards.
    """
    model = config.build()
    if len(shape) == 2:
        inputs = targets = torch.randint(0, config.vocab_size, shape)
    else:
        inputs, targets = torch.rand(shape), torch.randint(0, config.classes, shape[:1])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(inputs)
        F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten()).backward()

    step()  # Gradients are there from now on.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    kernels = [
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.name().startswith(UNFOLDING)
    ]
    held = most = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            if not any(start <= event.start_ns() <= end for start, end in kernels):
                most = max(most, held)
    return most


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_within_a_tenth_of_the_measured_peak(name):
    config, shape = CASES[name]
    assert peak(config, shape, "float32") == pytest.approx(activation_bytes(config, shape), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide", "vocabulary", "vit", "convnet"])
def test_in_bfloat16_too(name):
    config, shape = CASES[name]
    measured = peak(config, shape, "bfloat16")
    estimated = activation_bytes(config, shape, "bfloat16")
    assert measured == pytest.approx(estimated, rel=0.125)
    assert estimated < activation_bytes(config, shape)


def test_estimating_draws_no_random_numbers():
    before = torch.get_rng_state()
    for config, shape in CASES.values():
        assert activation_bytes(config, shape) > 0
    assert torch.equal(torch.get_rng_state(), before)


class Asking(nn.Module):
    """A model of one's own that asks for numbers, which the meta device has not."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float() * float(tokens.sum())


class AskingConfig:
    def build(self) -> nn.Module:
        return Asking()


def test_a_model_that_needs_numbers_cannot_be_estimated():
    with pytest.raises(RuntimeError):
        activation_bytes(AskingConfig(), TOKENS)
