"""Ways to clip gradients: each scales them in place, given their global norm.

A tensor is one parameter; n tensors. All work on what `FlatParameters` holds.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.optim.flat_parameters import FlatParameters, scale_each


class Clipping(Protocol):
    """Scales gradients in place."""

    def clip(self, norm: float) -> None:
        """Clips the gradients, whose global norm is `norm`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Returns what it remembers of earlier steps."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what a `state_dict` remembers."""
        ...


class GlobalNorm:
    """Scales all gradients to a largest global norm (Pascanu et al. 2013); 0 never does."""

    def __init__(self, flat: FlatParameters, limit: float):
        self.flat, self.limit = flat, limit

    def clip(self, norm: float) -> None:
        if self.limit:
            _scale_all(self.flat, self.limit, norm)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """It remembers nothing."""


class WeightRatio:
    """AGC: scales a tensor's gradient to a largest ratio of its norm to the weights' norm.

    Brock et al. 2021, arXiv 2102.06171, section 4.1, for whole tensors in place of rows.
    """

    FLOOR = 1e-3
    """Least weight norm, so that a tensor that starts at zero can grow."""

    def __init__(self, flat: FlatParameters, ratio: float):
        self.flat, self.ratio = flat, ratio

    def clip(self, norm: float) -> None:
        limits = self.ratio * self.flat.norms(self.flat.values).clamp(min=self.FLOOR)
        _scale(self.flat, limits, self.flat.norms(self.flat.grads))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """It remembers nothing."""


class RunningNorm:
    """AdaGC: scales a tensor's gradient to a largest ratio of its norm to its running norm gamma.

    Wang et al. 2025, arXiv 2502.11034, algorithm 1. In the first steps all gradients are clipped to
    a global norm of 1, and gamma is the tensor's smallest norm after that. Then its gradient is
    clipped to a norm of ratio gamma, and gamma becomes 0.98 gamma + 0.02 of the norm after that.
    As many steps come first as the learning rate warms up, 100 at most, which is the paper's
    number. Unlike there, norms of 0 don't count until gamma is above 0, since a tensor would never
    be let go again; a tensor without a gradient so far isn't clipped.
    """

    BETA, GLOBAL_NORM, FIRST_STEPS = 0.98, 1.0, 100

    def __init__(self, flat: FlatParameters, ratio: float, warmup_steps: int):
        self.flat, self.ratio = flat, ratio
        self.first_steps = min(self.FIRST_STEPS, warmup_steps)
        self.steps = 0
        self.running = torch.full((len(flat.sizes),), torch.inf, device=flat.grads.device)
        """gamma of each tensor; inf before its first gradient."""

    def clip(self, norm: float) -> None:
        if self.steps < self.first_steps:
            _scale_all(self.flat, self.GLOBAL_NORM, norm)
            norms = self.flat.norms(self.flat.grads)
            self.running = torch.minimum(self.running, _seen(norms))
        else:
            limits, norms = self.ratio * self.running, self.flat.norms(self.flat.grads)
            _scale(self.flat, limits, norms)
            mean = self.running.lerp(torch.minimum(norms, limits), 1 - self.BETA)
            self.running = torch.where(self.running.isinf(), _seen(norms), mean)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "running": self.running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.running.copy_(state["running"])


class NormScore:
    """ZClip: scales all gradients where their global norm is an outlier among earlier ones.

    Kumar et al. 2025, arXiv 2504.02507, and its code. With running mean mu and deviation sigma of
    the norm (0.97 of the old value, 0.03 of the new), a norm of z = (norm - mu) / (sigma + 1e-6)
    above the threshold is clipped to mu + sigma threshold^2 / z; mean and deviation take the norm
    after that. The first 25 steps aren't clipped, and give the first mean and deviation. The code
    also caps the norm at 1 unless asked not to; here the rule stands alone.
    """

    ALPHA, FIRST_STEPS, TINY = 0.97, 25, 1e-6

    def __init__(self, flat: FlatParameters, threshold: float):
        self.flat, self.threshold = flat, threshold
        self.first: list[float] = []
        self.mean = self.variance = 0.0

    def clip(self, norm: float) -> None:
        if len(self.first) < self.FIRST_STEPS:
            self.first.append(norm)
            self.mean = sum(self.first) / len(self.first)
            self.variance = sum((x - self.mean) ** 2 for x in self.first) / len(self.first)
            return
        sigma = self.variance**0.5
        z = (norm - self.mean) / (sigma + self.TINY)
        limit = self.mean + sigma * self.threshold**2 / z if z > self.threshold else norm
        _scale_all(self.flat, limit, norm)
        self.mean = self.ALPHA * self.mean + (1 - self.ALPHA) * limit
        self.variance = self.ALPHA * self.variance + (1 - self.ALPHA) * (limit - self.mean) ** 2

    def state_dict(self) -> dict[str, Any]:
        return {"first": list(self.first), "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.first = list(state["first"])
        self.mean, self.variance = state["mean"], state["variance"]


def clipping(flat: FlatParameters, config: Optimizer, schedule: Schedule) -> Clipping:
    """Returns the way of clipping that a config asks for."""
    if config.agc:
        return WeightRatio(flat, config.agc)
    if config.adagc:
        return RunningNorm(flat, config.adagc, schedule.warmup_steps)
    if config.zclip:
        return NormScore(flat, config.zclip)
    return GlobalNorm(flat, config.clip_norm)


def _scale_all(flat: FlatParameters, limit: float, norm: float) -> None:
    """Scales all gradients from their global norm down to a limit, where it is above."""
    if norm > limit:
        flat.grads.mul_(limit / norm)


def _scale(flat: FlatParameters, limits: Tensor, norms: Tensor) -> None:
    """Scales each tensor's gradient down to its limit, where its norm is above; others are kept."""
    factors = torch.where(norms > limits, limits / norms, 1.0)
    scale_each(flat.views(flat.grads), factors.unbind())


def _seen(norms: Tensor) -> Tensor:
    """Norms, with inf for those of 0."""
    return torch.where(norms > 0, norms, torch.inf)
