"""One update of all weights: clipping, the learning rate of each tensor, decay, the update rule.

Independent decay (source A, section 3.2.2, with the sign mended): theta loses
s_t (eta Delta + lambda theta), s_t the schedule in [0, 1], whatever eta a tensor has. With the
rules' form, theta (1 - lr_t w), that is w = lambda / eta. Coupled is torch's own meaning:
w = lambda. Where a tensor's learning rate changes at run time (update_clip, lr_scale), decay is
applied beforehand, by the learning rate without those factors.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foretune.models.nets.parametrize import Rule
from foretune.tuner.config.optimizer import Optimizer, Schedule
from foretune.tuner.optim.flat_parameters import FlatParameters, scale_each
from foretune.tuner.optim.gradient_clipping import clipping
from foretune.tuner.optim.lr_schedule import lr_at
from foretune.tuner.optim.segments import Group, grouped, segments
from foretune.tuner.optim.skip_step import SkipStep
from foretune.tuner.optim.update_rules import load_moments, update_rule

__all__ = ["FlatOptimizer", "FlatParameters", "lr_at"]

LEAST_RMS = 1e-3
"""Least RMS of a tensor's weights that lr_scale=rms multiplies by, so that one that starts at zero
can grow (Shazeer and Stern 2018)."""


class FlatOptimizer:
    """An update rule over flat parameters, with clipping, a schedule and what may skip a step."""

    def __init__(
        self,
        flat: FlatParameters,
        config: Optimizer,
        schedule: Schedule,
        steps: int,
        rules: Mapping[str, Rule] | None = None,
    ):
        """rules are factors by parameter, of `models.nets.parametrize.parametrize`."""
        self.flat, self.config, self.schedule, self.steps = flat, config, schedule, steps
        self.segments = segments(flat, config, rules or {})
        self.groups = grouped(self.segments)
        self.rule = update_rule(flat, config, self.segments)
        self.clipping = clipping(flat, config, schedule)
        self.skip_step = SkipStep(config.skip_sigma) if config.skip_sigma else None
        self.skipping = False
        """Whether the update of the gradients that were clipped last is left out."""
        self.least_factor: float | None = None
        """Smallest factor that the last update's clipping gave to a tensor's learning rate."""

    def clip(self, loss: float) -> float:
        """Judges a batch and clips its gradients; returns their norm before, maybe nan.

        loss is the batch's. Gradients of a step that is skipped stay as they are. A norm too large
        for float32 is inf where the global norm isn't clipped: moments would overflow next.
        """
        norm = float(torch.linalg.vector_norm(self.flat.grads))
        if math.isinf(norm) and self.config.clip_norm:
            # Squares overflow from 1e19 on; gradients that aren't finite have no norm either way.
            norm = float(torch.linalg.vector_norm(self.flat.grads, dtype=torch.float64))
        self.skipping = self.skip_step is not None and self.skip_step.is_outlier(loss, norm)
        if not self.skipping:
            self.clipping.clip(norm)
        return norm

    def step(self, step: int) -> float:
        """Applies update `step` with the gradients there, zeroes them; returns the LR it used."""
        lr = lr_at(self.schedule, peak=self.config.lr, steps=self.steps, step=step)
        if not self.skipping:
            self.rule.update(self._groups(lr), lr)
        self.flat.grads.zero_()
        return lr

    def _groups(self, lr: float) -> list[Group]:
        """The groups of an update; decays the weights where their groups change with each one."""
        if not self.config.update_clip and self.config.lr_scale == "none":
            return self.groups
        factors = self._factors()
        for group in self.groups:
            keep = 1 - lr * group.like.lr * group.like.decay
            scale_each(group.cut(self.flat.values), keep)
        return grouped(
            replace(part, lr=part.lr * factors[part.tensor], decay=0.0) for part in self.segments
        )

    def _factors(self) -> list[float]:
        """The factor on each tensor's learning rate."""
        factors = torch.ones(len(self.flat.sizes), device=self.flat.values.device)
        if self.config.update_clip:
            factors = (self.rule.rms_t() / self.config.update_clip).clamp(min=1.0).reciprocal()
            self.least_factor = float(factors.amin())
        if self.config.lr_scale == "rms":
            factors = factors * self.flat.rms(self.flat.values).clamp(min=LEAST_RMS)
        return factors.tolist()

    def unscaled_update(self) -> Tensor:
        """Returns Delta of the last update, flat: before LR and decay."""
        return self.rule.unscaled()

    def rms_t(self) -> dict[str, float]:
        """Returns RMS_t of StableAdamW by parameter, before the update of the gradients there.

        See `tuner.optim.moments`. Parameters without a second moment are left out.
        """
        values = dict(zip(self.flat.names, self.rule.rms_t().tolist(), strict=True))
        without = {self.flat.names[part.tensor] for part in self.segments if part.matrix}
        return {name: value for name, value in values.items() if name not in without}

    def columns(self) -> dict[str, float]:
        """Returns what the last step did, by telemetry column, where config asked for it."""
        columns: dict[str, float] = {}
        if self.skip_step is not None:
            columns["skipped_steps"] = self.skip_step.skipped
        if self.least_factor is not None and not self.skipping:
            columns["update_clip_ratio"] = self.least_factor
        return columns

    def state_dict(self) -> dict[str, Any]:
        """Returns moments (flat), the count of updates and what else goes from step to step."""
        state = {"rule": self.rule.state_dict(), "clipping": self.clipping.state_dict()}
        return state | ({"skip_step": self.skip_step.state_dict()} if self.skip_step else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a `state_dict`."""
        load_moments(self.rule, state["rule"])
        self.clipping.load_state_dict(state["clipping"])
        if self.skip_step:
            self.skip_step.load_state_dict(state["skip_step"])
