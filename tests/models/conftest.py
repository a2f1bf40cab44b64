"""Models that several files of tests share."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foretune.models.blocks.buildable import Buildable
from foretune.models.quantization.config import Quantization
from foretune.models.quantization.replace import quantize

STEPS = 8
TEXT = b"The quick brown fox jumps over the lazy dog, and 0 is neither 1 nor -1.\n" * 40


@pytest.fixture(scope="session")
def train_few() -> Callable[[Buildable, Quantization], nn.Module]:
    """Returns a language model of a config after a few real steps of quantized training."""

    def train(config: Buildable, quantization: Quantization) -> nn.Module:
        torch.manual_seed(0)
        model = config.build()
        quantize(model, quantization)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
        for step in range(STEPS):
            tokens = torch.tensor(list(TEXT[step * 131 :][: 4 * 33])).view(4, 33)
            logits = model(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.eval()

    return train


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    """Returns text that the models above have seen, shape (8, 32)."""
    return torch.tensor(list(TEXT[: 8 * 32])).view(8, 32)
