"""Initial values of weights."""

import torch
from torch import Tensor, nn

TRUNCATED_STD = 0.87962566
"""Standard deviation of a standard normal cut off at +-2, which the draw below corrects for."""


def truncated_normal_(weight: Tensor, *, std: float) -> Tensor:
    """Fills weight in place from a normal cut off at two sigma, of exactly `std`; returns it.

    Same distribution as Flax's `variance_scaling(..., "truncated_normal")`, the choice of source A
    (Wortsman et al. 2023, section 2.1).
    """
    scale = std / TRUNCATED_STD
    with torch.no_grad():
        return nn.init.trunc_normal_(weight, std=scale, a=-2 * scale, b=2 * scale)
