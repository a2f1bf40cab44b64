"""How long must the warm-up be, and does a longer one make training less sensitive to the learning
rate? (Source A, figure 5.)

Warm-up of 0, 1, 5 and 25 % of 300 steps, with qk-layernorm on, x size x learning rate. The paper
found that longer warm-up lowers both sensitivity and loss, most for the largest models. Cost of 60
combinations and a seed: at `tiny` two minutes on one core of an AMD Zen 5; at `small` 96 trials,
6.7e16 FLOP; at `paper` 196 trials, 1.5e22 FLOP, 10,737 H100 hours (`foretune reproduce fig5
--dry-run`).
"""

from foretune.search_spaces.grids import Variants, cross

SHARES = {"none": 0.0, "1 %": 0.01, "5 %": 0.05, "25 %": 0.25}
"""Warm-up as a share of all steps; source A's own is 5 %."""


def variants(steps: int) -> Variants:
    """Returns the warm-up lengths of runs of so many steps."""
    return {
        name: {"schedule.warmup_steps": round(share * steps), "model.qk_norm": True}
        for name, share in SHARES.items()
    }


VARIANTS = variants(300)
SPACE = [{"steps": 300, **part} for part in cross(VARIANTS)]
