"""Named complete runs. A preset is a function of its length, from which warm-up and validation
follow; everything else is a value to override.
"""

from collections.abc import Callable

from models import TransformerConfig
from tuner.config import PROBES, Run, Schedule

WARMUP_SHARE = 0.05
"""Warm-up as a share of steps: source A's 5e3 of 1e5."""


def lm_tiny(steps: int = 200) -> Run:
    """Byte LM on the standard library's sources: 3 blocks, head_dim 16, context 64, batch 8.

    Seconds on one CPU core up to width 64. Shows the attention-logit instability from width 16.
    """
    return Run(
        steps=steps,
        eval_every=max(1, steps // 4),
        telemetry_every=max(1, min(10, steps // 20)),
        probes=PROBES,
        model=TransformerConfig(width=64, depth=3, head_dim=16, max_positions=64),
        schedule=Schedule(warmup_steps=max(1, round(WARMUP_SHARE * steps)) if steps > 1 else 0),
    )


PRESETS: dict[str, Callable[..., Run]] = {"lm-tiny": lm_tiny}
"""Presets by name."""
