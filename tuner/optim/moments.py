"""Adam's two moments of the gradients, and RMS_t, which says how far the second lags behind."""

import torch
from torch import Tensor

from foretune.tuner.config.optimizer import Optimizer
from foretune.tuner.optim.flat_parameters import FlatParameters

UNDERFLOW = 1.1e-19
"""A gradient below this has a square below float32's smallest normal number, so no second moment;
RMS_t takes no smaller epsilon."""


class Moments:
    """Running means of gradients and of their squares, flat, and the count of updates."""

    def __init__(self, flat: FlatParameters, config: Optimizer):
        self.flat, self.config = flat, config
        self.first = torch.zeros_like(flat.values)
        self.second = torch.zeros_like(flat.values)
        self.count = torch.zeros((), device=flat.values.device)

    def corrected(self) -> tuple[Tensor, Tensor]:
        """Returns m and v without the bias of their start at zero."""
        count = float(self.count)
        m = self.first / (1 - self.config.beta1**count)
        v = self.second / (1 - self.config.beta2**count)
        return m, v

    def rms_t(self, epsilon: float | Tensor) -> Tensor:
        """Returns RMS_t of each tensor for the update that comes, shape (n_tensors,).

        sqrt(mean(g^2 / max(u, epsilon^2))), u the corrected second moment with g in it
        (StableAdamW, Wortsman et al. 2023, arXiv 2304.13013, algorithm 2).
        """
        grads, beta2 = self.flat.grads, self.config.beta2
        u = torch.addcmul(self.second * beta2, grads, grads, value=1 - beta2)
        u.div_(1 - beta2 ** (float(self.count) + 1))
        floor = torch.as_tensor(epsilon, device=u.device).clamp(min=UNDERFLOW)
        return self.flat.rms(grads / torch.maximum(u.sqrt_(), floor))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the moments and the count."""
        return {"first_moment": self.first, "second_moment": self.second, "count": self.count}
