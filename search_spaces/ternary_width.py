"""How much wider must a ternary language model be to match full precision, and does that factor
shrink with width? (Source B claims twice the hidden size.)

Quantizer x width over a factor of 8 x learning rate. Ternary models get learning rates half a
decade higher as well: they want more. 42 combinations; at 300 steps 1.5-9 s each on one core of an
AMD Zen 5.
"""

from ray import tune

WIDTHS = tune.grid_search([16, 32, 64, 128])

SPACE = [
    {
        "quantizer": tune.grid_search(["none", "control"]),
        "model.size": WIDTHS,
        "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2]),
    },
    {
        "quantizer": tune.grid_search(["ternary-mean", "ternary-median"]),
        "model.size": WIDTHS,
        "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2, 1e-1]),
    },
]
