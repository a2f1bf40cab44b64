"""Simple rules that a forecast has to beat: one signal each, nothing fitted.

Each ranks: its `probability` is a score squashed into 0..1, of which only the order means
something. `analysis.inside_run.configuration` has the baseline that is fitted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from foretune.analysis.inside_run.contract import Forecast, Predictor, cannot_tell, rank
from foretune.analysis.inside_run.loss_baselines import LearningCurve, LossAgainstSweep, LossSlope
from foretune.analysis.records.families import LR
from foretune.analysis.stats.series import (
    LARGEST,
    level,
    number,
    readings,
    squashed,
    z_against_before,
)

CONTEXT_LENGTH: Final = "data.sequence_length"


def log_lr(history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
    """Ranks by the peak learning rate eta alone: P = eta / (eta + 0.01).

    Inside one size it is a strong predictor, so everything must beat it. Unit: 1.
    """
    lr = number(context, "lr", LR)
    if not lr > 0:
        return cannot_tell("no learning rate in the context")
    return rank(lr / (lr + 1e-2), f"learning rate {lr:.3g}")


@dataclass(frozen=True, slots=True)
class MaxLogit:
    """Ranks by the largest attention logit S: P = S / (S + danger).

    S is the geometric mean of the newest 3 readings or fewer. Wortsman et al. 2023 saw every run
    above 1e4 diverge; at small scale the damage begins near 100. Unit: logits, nats.
    """

    danger: float = 100.0
    """Logit that scores one half."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        logit = level(_largest_logits(history))
        if math.isnan(logit):
            return cannot_tell("no attention logit was read")
        return rank(logit / (logit + self.danger), f"largest attention logit {logit:.3g}")


def _largest_logits(history: pd.DataFrame) -> np.ndarray:
    _, logits = readings(history, "max_attention_logit")
    layers = [c for c in history if str(c).startswith("max_attention_logit_layer")]
    if len(logits) or not layers:
        return logits
    numbers = history[layers].apply(pd.to_numeric, errors="coerce").max(axis=1)
    return readings(pd.DataFrame({"largest": numbers}), "largest")[1]


@dataclass(frozen=True, slots=True)
class AttentionEntropy:
    """Ranks by how low the attention entropy H is: P = H0 / (H0 + H).

    H is the geometric mean of the newest 3 readings or fewer; H0 is log T for a context of T
    tokens, or the first reading where T isn't known. Low entropy goes with oscillation and
    divergence (Zhai et al. 2023). Unit: nats.
    """

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        _, entropies = readings(history, "attention_entropy")
        if not len(entropies):
            return cannot_tell("no attention entropy was read")
        length = number(context, CONTEXT_LENGTH)
        full = math.log(length) if length > 1 else float(entropies[0])
        if not full > 0:
            return cannot_tell("no attention entropy above 0 to compare with")
        entropy = level(entropies)
        return rank(full / (full + entropy), f"attention entropy {entropy:.3g} of {full:.3g} nats")


@dataclass(frozen=True, slots=True)
class GradNormZ:
    """Ranks by the robust z of the newest gradient norm: (g - median) / (1.4826 MAD) of its past.

    The past is the last `window` readings; a spread below 1e-6 of the median counts as that.
    Unit: deviations.
    """

    window: int = 200
    """Readings of the past."""
    least: int = 16
    """Readings of the past without which nothing is said."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        _, norms = readings(history, "grad_norm")
        if len(norms) <= self.least:
            return cannot_tell(f"{len(norms)} gradient norms, {self.least + 1} are needed")
        past, newest = norms[-self.window - 1 : -1], float(norms[-1])
        median = float(np.median(past))
        spread = 1.4826 * float(np.median(np.abs(past - median)))
        z = (newest - median) / max(spread, 1e-6 * abs(median), 1e-30)
        z = float(np.clip(z, -LARGEST, LARGEST))
        return rank(squashed(z, 3.0), f"gradient norm {newest:.3g}, z {z:.3g}")


@dataclass(frozen=True, slots=True)
class SpikeScore:
    """Ranks by OLMo 2's spike score: the share of losses that lie `sigmas` above the mean before.

    Mean and deviation are those of the last `window` losses, or of what there is from `least` on
    (OLMo et al. 2025: 7 deviations of 1,000, to either side; a fall is no danger, so only rises
    count here). P is the share. `analysis.measures.labels.spike_score` is the monitor's rule, for
    labels.
    """

    sigmas: float = 7.0
    """Deviations above the mean that make a spike."""
    window: int = 1000
    """Losses before it that are compared with."""
    least: int = 16
    """Losses without which nothing is said."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        _, losses = readings(history, "loss")
        z = z_against_before(losses, window=self.window, least=self.least)
        if not len(z):
            return cannot_tell(f"{len(losses)} losses, {self.least + 1} are needed")
        share = float((z > self.sigmas).mean())
        return rank(share, f"{share:.2%} of the losses are spikes, the largest at z {z.max():.3g}")


@dataclass(frozen=True, slots=True)
class SkipStep:
    """Ranks by OLMo-core's SkipStep: the share of steps that it would skip.

    A step is skipped if its loss or gradient norm lies more than `sigmas` deviations above the mean
    of the last `window` values; half a window must be there (Groeneveld et al. 2024; OLMo-core's
    SkipStepOptimizer). P is the share.
    """

    sigmas: float = 6.0
    """Deviations above the mean from which a step is skipped."""
    window: int = 128
    """Values before it that are compared with."""

    def __call__(self, history: pd.DataFrame, context: Mapping[str, Any]) -> Forecast:
        least = self.window // 2
        skipped: dict[float, bool] = {}
        for column in ("loss", "grad_norm"):
            steps, values = readings(history, column)
            z = z_against_before(values, window=self.window, least=least)
            for step, value in zip(steps[least:].tolist(), z.tolist(), strict=True):
                skipped[step] = skipped.get(step, False) or value > self.sigmas
        if not skipped:
            return cannot_tell(f"fewer than {least + 1} losses and gradient norms")
        count = sum(skipped.values())
        return rank(count / len(skipped), f"{count} of {len(skipped)} steps would be skipped")


BASELINES: Final[Mapping[str, Predictor]] = MappingProxyType(
    {
        "log_lr": log_lr,
        "max_logit": MaxLogit(),
        "loss_against_sweep": LossAgainstSweep(),
        "loss_slope": LossSlope(),
        "learning_curve": LearningCurve(),
        "spike_score": SpikeScore(),
        "skip_step": SkipStep(),
        "grad_norm_z": GradNormZ(),
        "attention_entropy": AttentionEntropy(),
    }
)
"""Baselines that need no fitting, by name."""
