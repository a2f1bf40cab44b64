"""Does a language model in 1.58 bits match full precision, at which width, and with which scale?
(Source B: Nielsen and Schneider-Kamp 2024.)

Quantizer x width multiplier {1, 1.5, 2} x learning rate, from width 32. `control` is full precision
with the norms that the ternary layers have: at this scale most of the gap can be theirs. 36
combinations; at 300 steps about 2.5 s each on one core of an AMD Zen 5. The paper reports that
language models reach full precision when the hidden size is doubled.
"""

from ray import tune

SPACE = {
    "quantizer": tune.grid_search(["none", "control", "ternary-mean", "ternary-median"]),
    "model.size": tune.grid_search([32, 48, 64]),
    "optimizer.lr": tune.grid_search([3e-3, 1e-2, 3e-2]),
}
