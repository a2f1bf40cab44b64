"""Does a vision model in 1.58 bits match full precision at the same width, or at twice the width?
(Source B: vision models match or beat at equal size.)

Quantizer x width multiplier {1, 2} x learning rate. Sizes are those of cnn-tiny; resnet-tiny wants
`--sizes 12 24`, vit-tiny `--sizes 32 64`. 32 combinations; at 400 steps about 10-40 s each on one
core of an AMD Zen 5.
"""

from ray import tune

PRESET = "cnn-tiny"
SPACE = {
    "quantizer": tune.grid_search(["none", "control", "ternary-mean", "ternary-median"]),
    "model.size": tune.grid_search([8, 16]),
    "optimizer.lr": tune.grid_search([1e-3, 3e-3, 1e-2, 3e-2]),
}
