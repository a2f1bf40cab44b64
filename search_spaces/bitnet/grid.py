"""Which learning rate, weight decay (none included) and width multiplier {1, 1.5, 2} suit each
number format? (Source B's search, as one grid.)

Ternary is tried at learning rates half a decade higher. 108 combinations; at 300 steps about 2.5 s
each on one core of an AMD Zen 5. For images: `--preset cnn-tiny --sizes 16 24 32`.
"""

from ray import tune

DECAYS = tune.grid_search([0.0, 1e-4, 1e-3])
WIDTHS = tune.grid_search([32, 48, 64])

SPACE = [
    {
        "quantizer": tune.grid_search(["none", "control"]),
        "model.size": WIDTHS,
        "optimizer.weight_decay": DECAYS,
        "optimizer.lr": tune.grid_search([1e-3, 3e-3, 1e-2]),
    },
    {
        "quantizer": tune.grid_search(["ternary-mean", "ternary-median"]),
        "model.size": WIDTHS,
        "optimizer.weight_decay": DECAYS,
        "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2]),
    },
]
