"""Learning rate over time."""

import math

from foretune.tuner.config.optimizer import Schedule


def lr_at(schedule: Schedule, *, peak: float, steps: int, step: int) -> float:
    """Returns the learning rate of update `step` (from 0) of `steps`.

    Linear from peak / warmup_steps to peak in the first warmup_steps updates. Then it falls, from
    peak, in the next one, to final_lr in the last: by half a cosine or a line; wsd (warm-up,
    stable, decay; Hu et al. 2024) stays at the peak first and falls in the last decay_share of all
    steps. Where the first and the last are one and the same, it is peak.
    """
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.name == "constant":
        return peak
    span = max(1, steps - 1 - schedule.warmup_steps)
    if schedule.name == "wsd":
        span = min(span, schedule.decay_steps(steps))
    done = step - max(schedule.warmup_steps, steps - 1 - span)
    progress = min(1.0, max(0, done) / span)
    left = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.name == "cosine" else 1 - progress
    return schedule.final_lr + (peak - schedule.final_lr) * left
