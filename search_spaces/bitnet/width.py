"""How much wider must a ternary language model be to match full precision, does that factor shrink
with width, and how much of it is the norms'? (Source B claims twice the hidden size.)

Quantizer x width over a factor of 8 x learning rate. 72 combinations; at 300 steps 1.5-8 s each on
one core of an AMD Zen 5. Full precision starts at the width whose bytes are those of a ternary
model of twice the width, so that equal bytes can be compared.
"""

from ray import tune

SPACE = {
    "quantizer": tune.grid_search(
        [
            "none",
            "control",
            "ternary-mean",
            "ternary-median",
            "ternary-mean-bare",
            "ternary-median-bare",
        ]
    ),
    "model.size": tune.grid_search([16, 32, 64, 128]),
    "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2]),
}
