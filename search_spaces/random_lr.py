"""Which settings train best when learning rate, weight decay and width are all open?

Drawn at random (or by Optuna): log-uniform learning rate over two decades, decay including none,
width from the ladder, qk-layernorm on or off. Each trial of 200 steps takes 0.5-2 s on one core at
widths 16-64.
"""

from ray import tune

SPACE = {
    "optimizer.lr": tune.loguniform(3e-3, 3e-1),
    "optimizer.weight_decay": tune.choice([0.0, 1e-5, 1e-4, 1e-3]),
    "model.qk_norm": tune.choice([False, True]),
    "model.size": tune.choice([16, 32, 64]),
}
