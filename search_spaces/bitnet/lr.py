"""How sensitive to the learning rate is each number format, and does qk-layernorm help there, too?
(Source B on learning rates; source A on stability: a table that neither has.)

Quantizer x qk-layernorm x learning rate x width. 80 combinations; at 300 steps about 2.5 s each on
one core of an AMD Zen 5.
"""

from ray import tune

SPACE = {
    "quantizer": tune.grid_search(["none", "control", "ternary-mean", "ternary-median"]),
    "model.qk_norm": tune.grid_search([False, True]),
    "model.size": tune.grid_search([32, 64]),
    "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2, 1e-1, 3e-1]),
}
