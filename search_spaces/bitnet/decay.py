"""How much does weight decay matter to each number format, none included? (Source B.)

Quantizer x independent decay {0, 1e-5, 1e-4, 1e-3, 1e-2} x learning rate, at width 32: the best
learning rate may move with the decay. 40 combinations; at 300 steps about 2 s each on one core of
an AMD Zen 5.
"""

from ray import tune

SPACE = {
    "quantizer": tune.grid_search(["none", "control", "ternary-mean", "ternary-median"]),
    "optimizer.weight_decay": tune.grid_search([0.0, 1e-5, 1e-4, 1e-3, 1e-2]),
    "optimizer.lr": tune.grid_search([3e-3, 1e-2]),
    "model.size": 32,
}
