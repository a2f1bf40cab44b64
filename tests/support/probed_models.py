"""A small transformer, its probes, and what they read of a forward pass."""

import torch
from torch import Tensor, nn

from foretune.models import Transformer, TransformerConfig
from foretune.tuner.config.run import PROBES
from foretune.tuner.optim.flat_parameters import FlatParameters
from foretune.tuner.training.probes import Probes

torch.set_num_threads(1)

CONFIG = TransformerConfig(width=32, depth=3, head_dim=8, vocab_size=40, max_positions=12)


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
