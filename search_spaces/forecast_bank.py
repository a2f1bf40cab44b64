"""The runs of the forecast bank: what predictors are fitted on and scored with, as plain spaces.

Each part answers for one split of `analysis.evaluation.splits`. About 1,200 runs of 300 steps, an
hour on two cores of an AMD Zen 5; `foretune reproduce bank` runs them.
"""

from typing import Any

import numpy as np
from ray import tune

RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
"""Learning rates of half a decade each."""
BOTH = tune.grid_search([False, True])

CORE = {
    "model.qk_norm": BOTH,
    "model.size": tune.grid_search([16, 32, 48, 64, 96, 128]),
    "optimizer.lr": tune.grid_search(RATES),
}
"""Learning rate x width x qk-layernorm: sizes to fit on, and the first one to be held out."""

LARGE = [
    {
        "model.size": 256,
        "model.qk_norm": qk_norm,
        "seed": tune.grid_search(seeds),
        "optimizer.lr": tune.grid_search(rates),
    }
    for qk_norm, seeds, rates in (
        (False, [0, 1, 2], [1e-3, 3e-3, 5.6e-3, 1e-2, 1.7e-2, 3e-2, 1e-1, 3e-1]),
        (True, [0], RATES[1:]),
    )
]
"""The largest size: half of everything's cost, so no denser than needed."""

QUARTERS = {
    16: [5.6e-2, 1.7e-1],
    32: [1.7e-2, 5.6e-2, 1.7e-1],
    48: [1.7e-2, 5.6e-2],
    64: [1.7e-2, 5.6e-2],
    96: [5.6e-3, 1.7e-2, 5.6e-2],
    128: [5.6e-3, 1.7e-2, 5.6e-2],
}
"""Quarter-decade rates around each width's edge (critical rate about 0.05 at width 16, falling as
1 / width)."""
EDGE = [
    {"model.size": size, "model.qk_norm": False, "optimizer.lr": tune.grid_search(rates)}
    for size, rates in QUARTERS.items()
]

SWITCHES: dict[str, list[Any]] = {
    "optimizer.weight_decay": [0.0, 1e-3],
    "schedule.warmup_steps": [3, 75],
    "loss.z_loss": [1e-4],
    "optimizer.epsilon": [1e-6],
    "optimizer.clip_norm": [0.0],
    "model.depth": [2, 6],
    "model.head_dim": [8, 32],
    "data.sequence_length": [32, 128],
    "batch_size": [4, 16],
    "steps": [150, 1000],
}
"""One field at a time, away from the preset's value."""
FOLLOWING = {"data.sequence_length": "model.max_positions", "batch_size": "micro_batch_size"}
"""Fields that must move with another one."""


def _one_at_a_time(qk_norm: bool) -> list[dict[str, Any]]:
    return [
        {
            "steps": 300,
            field: value,
            **({FOLLOWING[field]: value} if field in FOLLOWING else {}),
            "model.qk_norm": qk_norm,
            "model.size": tune.grid_search([32, 64]),
            "optimizer.lr": tune.grid_search(RATES[1:7]),
        }
        for field, values in SWITCHES.items()
        for value in values
    ]


ONE_AT_A_TIME = _one_at_a_time(False)
CURED = [
    *_one_at_a_time(True),
    *({**part, "steps": 300, "model.qk_norm": True} for part in EDGE if part["model.size"] <= 64),
]
"""The twins with qk-layernorm of the switches and of the small widths' edges."""


def _random_search(seed: int, width: int, count: int = 48) -> list[dict[str, Any]]:
    """Configurations drawn once, each with the twins that say what would have helped it.

    Twins: qk-layernorm flipped, and a third of the learning rate.
    """
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Any]] = []
    for index in range(count):
        lr = float(f"{10 ** rng.uniform(-3, -0.3):.3g}")
        drawn = {
            "seed": 1000 * seed + index,
            "model.size": width,
            "model.depth": int(rng.choice([2, 3, 4])),
            "model.head_dim": int(rng.choice([8, 16])),
            "model.init_gain": float(rng.choice([0.5, 1.0, 1.5])),
            "schedule.warmup_steps": int(rng.choice([3, 15, 75])),
            "optimizer.weight_decay": float(rng.choice([0.0, 1e-4, 1e-3])),
            "optimizer.clip_norm": float(rng.choice([0.0, 1.0])),
        }
        qk_norm = bool(rng.random() < 0.3)
        parts += [
            {**drawn, "model.qk_norm": qk_norm, "optimizer.lr": lr},
            {**drawn, "model.qk_norm": not qk_norm, "optimizer.lr": lr},
            {**drawn, "model.qk_norm": qk_norm, "optimizer.lr": float(f"{lr / 3:.3g}")},
        ]
    return parts


RANDOM = {seed: _random_search(seed, width) for seed, width in ((1, 32), (2, 48), (3, 64))}
"""Three random searches of 48 configurations, by their seed."""

TEXT = {
    "data.name": "prose",
    "model.qk_norm": BOTH,
    "model.size": tune.grid_search([32, 64]),
    "optimizer.lr": tune.grid_search(RATES),
}
"""Another text: English instead of Python."""

IMAGES = {
    "model.qk_norm": BOTH,
    "model.size": tune.grid_search([16, 32, 64]),
    "optimizer.lr": tune.grid_search(RATES),
}
"""Another architecture: the image transformer on digits."""

TERNARY = {
    "quantizer": "ternary-mean",
    "model.qk_norm": BOTH,
    "model.size": tune.grid_search([32, 64]),
    "optimizer.lr": tune.grid_search(RATES[1:7]),
}
"""Another number format."""
