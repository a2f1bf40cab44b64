"""Which learning rate, decay and width suit each number format, when all are open?

Drawn at random, conditional on the quantizer: ternary layers get higher learning rates and up to
twice the width, full precision the range that suits it. Decay includes exactly 0.
"""

from ray import tune

DECAY = tune.choice([0.0, 1e-5, 1e-4, 1e-3])

SPACE = [
    {
        "quantizer": "none",
        "optimizer.lr": tune.loguniform(1e-3, 3e-2),
        "optimizer.weight_decay": DECAY,
        "model.size": 32,
    },
    {
        "quantizer": tune.grid_search(["ternary-mean", "ternary-median"]),
        "optimizer.lr": tune.loguniform(3e-3, 1e-1),
        "optimizer.weight_decay": DECAY,
        "model.size": tune.choice([32, 48, 64]),
    },
]
