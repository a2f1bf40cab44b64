"""Training loss: cross-entropy, and z-loss beside it. Shapes: N predictions, V classes."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy in nats; logits (..., V), targets (...)."""
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


def z_loss(logits: Tensor) -> Tensor:
    """Returns mean log^2 Z, Z the softmax normaliser (Chowdhery et al. 2022, section 5).

    With coefficient c the gradient of the whole loss with respect to a logit is
    (1 + 2 c log Z) p - onehot.
    """
    return logits.float().logsumexp(-1).square().mean()
